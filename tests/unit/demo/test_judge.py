from dataclasses import replace

import pytest

from hack.demo.history import Applied, History, Load, Outcome, RouteSeen, StatusSeen
from hack.demo.judge import LATENCY, judge
from hack.demo.loadgen.answers import GATEWAY
from tests.unit.demo.histories import (
    END,
    ROUTES,
    SECOND_APPLIED,
    SECOND_CONFIRMED,
    STATUSES,
    THIRD_APPLIED,
    THIRD_CONFIRMED,
    THIRD_WEIGHT,
    THIRD_ZERO,
    Run,
    candidate,
    good_run,
    revision,
    status,
)


@pytest.fixture
def run() -> Run:
    return good_run()


def only_failure(run: Run) -> str:
    (failure,) = judge(run.history()).failures
    return failure


def test_a_run_as_promised_is_good(run: Run) -> None:
    judgement = judge(run.history())

    assert judgement.failures == ()
    assert judgement.ok


def test_the_table_has_what_became_of_each_version(run: Run) -> None:
    first, second, third = judge(run.history()).rows

    assert [row.outcome for row in (first, second, third)] == [
        Outcome.PROMOTED,
        Outcome.PROMOTED,
        Outcome.ROLLED_BACK,
    ]
    assert dict(second.weights) == pytest.approx({5: 10, 25: 10, 50: 10, 100: 23, 95: 5})
    assert (first.errors, second.errors, third.errors) == (0, 0, third.requests // 3)
    assert (second.accuracy, third.accuracy) == (1.0, 1.0)
    assert third.reason.startswith("MetricFailed: errors is 0.31")
    assert third.first_bad_to_zero_s is not None
    assert 4 < third.first_bad_to_zero_s <= THIRD_ZERO - THIRD_WEIGHT
    assert second.first_bad_to_zero_s is None


def test_an_empty_history_is_not_good() -> None:
    assert not judge(History()).ok


def test_without_traffic_nothing_is_proven(run: Run) -> None:
    run.windows = []

    assert "no traffic was sent" in judge(run.history()).failures


def test_a_bad_version_that_is_promoted_is_a_failure(run: Run) -> None:
    run.replace_records(
        [*STATUSES[-2:], ROUTES[-1]],
        [
            RouteSeen(THIRD_ZERO, {revision(2): 75, revision(3): 25}),
            RouteSeen(THIRD_ZERO + 4, {revision(2): 50, revision(3): 50}),
            RouteSeen(THIRD_ZERO + 8, {revision(3): 100}),
            StatusSeen(THIRD_ZERO + 9, 3, status(3, {3: (100, 100)})),
        ],
    )

    failures = judge(run.history()).failures

    assert "version 3 is Promoted, expected RolledBack" in failures
    assert "version 3 still has 100 % of the traffic" in failures


def test_a_bad_version_that_only_stays_is_a_failure(run: Run) -> None:
    run.replace_records([*STATUSES[-2:], ROUTES[-1]], [])

    failures = judge(run.history()).failures

    assert "version 3 is Unfinished, expected RolledBack" in failures
    assert "version 3 still has 5 % of the traffic" in failures


def test_a_rollback_for_another_reason_is_a_failure(run: Run) -> None:
    third = next(r for r in run.records if isinstance(r, Applied) and r.version == 3)
    run.replace_records([third], [replace(third, because="errors")])
    assert judge(run.history()).ok

    run.replace_records([replace(third, because="errors")], [replace(third, because="latency")])
    assert "expected was latency" in only_failure(run)


@pytest.mark.parametrize(
    ("codes", "complaints"),
    [(["503", "504"], 0), (["503", "500"], 1), ([], 1)],
    ids=["late only", "an error too", "none"],
)
def test_a_slow_version_may_be_found_out_by_answers_that_never_came(
    codes: list[str], complaints: int, run: Run
) -> None:
    third = next(r for r in run.records if isinstance(r, Applied) and r.version == 3)
    run.replace_records([third], [replace(third, because=LATENCY)])
    for index, window in enumerate(run.windows):
        cells = tuple(cell for cell in window.cells if cell.ok)
        run.windows[index] = replace(window, cells=cells, sent=sum(cell.count for cell in cells))
    for code in codes:
        run.answer(THIRD_WEIGHT + 1, 3, code)

    found = [text for text in judge(run.history()).failures if "expected was latency" in text]
    assert len(found) == complaints


def test_a_version_that_may_never_have_traffic_fails_with_any(run: Run) -> None:
    third = next(r for r in run.records if isinstance(r, Applied) and r.version == 3)
    run.replace_records([third], [replace(third, steps=())])

    assert only_failure(run) == "version 3 had the weights [5], planned were []"


def test_a_good_version_that_is_rolled_back_is_a_failure(run: Run) -> None:
    run.replace_records(
        STATUSES[3:4], [StatusSeen(SECOND_CONFIRMED, 2, status(1, {1: (100, 100)}, rolled_back=2))]
    )

    assert "version 2 is RolledBack, expected Promoted" in judge(run.history()).failures


def test_a_version_that_the_operator_never_saw_is_a_failure(run: Run) -> None:
    unseen = Applied(END - 1, 4, "unseen", "sha256:0", Outcome.PROMOTED)
    run.records.append(unseen)

    assert "version 4 is Unfinished, expected Promoted" in judge(run.history()).failures


def test_a_weight_that_was_left_out_is_a_failure(run: Run) -> None:
    run.replace_records([ROUTES[2]], [])

    assert (
        "version 2 had the weights [5, 50, 100], planned were [5, 25, 50, 100]"
        in judge(run.history()).failures
    )


def test_a_weight_that_came_back_after_the_rollback_is_a_failure(run: Run) -> None:
    run.records.append(RouteSeen(END - 2, {revision(2): 95, revision(3): 5}))

    assert "version 3 still has 5 % of the traffic" in judge(run.history()).failures


@pytest.mark.parametrize("version", [1, 2])
def test_an_error_of_a_sound_version_is_a_failure(run: Run, version: int) -> None:
    run.answer(SECOND_APPLIED + 5, version, "500")

    assert only_failure(run).startswith(f"1 requests failed with 500 from {revision(version)}")


@pytest.mark.parametrize("code", ["502", "reset", "timeout", "connect", "overload"])
def test_an_error_of_the_gateway_is_a_failure(run: Run, code: str) -> None:
    run.answer(THIRD_WEIGHT + 2, GATEWAY, code)

    assert only_failure(run).startswith(f"1 requests failed with {code} from gateway")


def test_an_error_of_the_gateway_for_a_dead_candidate_is_the_candidates(run: Run) -> None:
    dead = status(2, {2: (95, 95), 3: (5, 5)}, candidate=candidate(3, 5, ready=0))
    run.records.append(StatusSeen(THIRD_WEIGHT + 2.5, 3, dead))
    run.answer(THIRD_WEIGHT + 2, GATEWAY, "502")

    assert judge(run.history()).ok


def test_a_candidate_that_was_dead_excuses_no_outage_of_the_gateway(run: Run) -> None:
    for ready, after_s in ((0, 0.6), (1, 0.9)):
        dead = status(2, {2: (95, 95), 3: (5, 5)}, candidate=candidate(3, 5, ready=ready))
        run.records.append(StatusSeen(THIRD_WEIGHT + after_s, 3, dead))
    run.answer(THIRD_WEIGHT + 4.5, GATEWAY, "502")

    assert only_failure(run).startswith("1 requests failed with 502 from gateway")


def test_a_dead_candidate_excuses_no_more_errors_than_its_share(run: Run) -> None:
    dead = status(2, {2: (95, 95), 3: (5, 5)}, candidate=candidate(3, 5, ready=0))
    run.records.append(StatusSeen(THIRD_WEIGHT + 0.6, 3, dead))
    for number in range(80):
        run.answer(THIRD_WEIGHT + 1 + number / 25, GATEWAY, "502")

    assert only_failure(run) == (
        "80 requests failed at the gateway while version 3 had 5 %: more than its share"
    )


def test_a_dead_candidate_excuses_no_error_of_the_gateway_once_its_weight_is_0(run: Run) -> None:
    dead = status(2, {2: (95, 95), 3: (5, 5)}, candidate=candidate(3, 5, ready=0))
    run.records.append(StatusSeen(THIRD_WEIGHT + 2.5, 3, dead))
    run.answer(THIRD_CONFIRMED + 5, GATEWAY, "502")

    assert only_failure(run).startswith("1 requests failed with 502 from gateway")


def test_an_error_of_the_candidate_before_its_weight_is_a_failure(run: Run) -> None:
    run.answer(THIRD_APPLIED + 0.5, 3, "500")

    assert only_failure(run).startswith(f"1 requests failed with 500 from {revision(3)}")


def test_a_request_that_reaches_a_version_after_its_confirmed_0_is_a_failure(run: Run) -> None:
    run.answer(THIRD_CONFIRMED + 0.35, 3)

    assert only_failure(run) == (
        "requests reached version 3 up to 0.35 s after its weight 0 was confirmed"
    )


def test_an_answer_after_the_confirmed_0_to_a_request_before_it_is_none(run: Run) -> None:
    run.answer(THIRD_CONFIRMED + 0.35, 3, sent=THIRD_CONFIRMED - 0.05)

    assert judge(run.history()).ok


def test_a_former_version_gets_nothing_after_its_confirmed_0_either(run: Run) -> None:
    run.answer(SECOND_CONFIRMED + 1, 1)

    assert only_failure(run).startswith("requests reached version 1 up to 1.00 s")


def test_a_0_that_is_never_confirmed_is_a_failure(run: Run) -> None:
    run.replace_records(STATUSES[-1:], [])

    assert "weight 0 of version 3 was never confirmed" in judge(run.history()).failures


def test_more_requests_at_the_candidate_than_its_weight_is_a_failure(run: Run) -> None:
    for tenth in range(40):
        run.answer(SECOND_APPLIED + 5 + tenth / 10, 2)

    assert "at weight 5 %" in only_failure(run)


def test_lost_answers_are_a_failure(run: Run) -> None:
    del run.windows[100:110]

    assert "the answers of 10 windows are lost" in judge(run.history()).failures


def test_requests_without_an_answer_are_a_failure(run: Run) -> None:
    run.windows[50] = replace(run.windows[50], sent=run.windows[50].sent + 3)

    assert only_failure(run) == "3 of 6603 requests have no answer"


def test_a_load_below_its_rate_is_a_failure(run: Run) -> None:
    loads = [record for record in run.records if isinstance(record, Load)]
    run.replace_records(loads, [replace(loads[0], rate=120), loads[1]])

    assert only_failure(run) == "only 6600 of 7920 requests were sent"
