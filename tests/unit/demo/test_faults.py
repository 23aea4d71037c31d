from dataclasses import replace

import pytest

from hack.demo.faults import fault_rows
from hack.demo.history import Applied, Fault, FaultKind, FaultPhase, RouteSeen, StatusSeen
from hack.demo.judge import judge
from hack.demo.loadgen.answers import GATEWAY
from model_operator.api.types import RolloutStatus
from model_operator.api.types import replace as changed
from tests.unit.demo.histories import (
    ROUTES,
    SECOND_APPLIED,
    STATUSES,
    THIRD_APPLIED,
    Run,
    good_run,
    revision,
)

BEGAN, NOTICED, MENDED = SECOND_APPLIED + 14, SECOND_APPLIED + 18, SECOND_APPLIED + 20


def fault(at: float, kind: FaultKind, phase: FaultPhase, share: float = 0.0) -> Fault:
    return Fault(at, kind, phase, "worker" if phase is FaultPhase.BEGAN else "", share)


def stopped_node() -> list[Fault]:
    kind = FaultKind.NODE_STOPPED
    return [
        fault(BEGAN, kind, FaultPhase.BEGAN, 0.1),
        fault(NOTICED, kind, FaultPhase.NOTICED),
        fault(MENDED, kind, FaultPhase.MENDED),
    ]


def stopped_prometheus(run: Run) -> list[Fault]:
    """Away for six seconds at 25 %, with the rollout held after three."""
    kind = FaultKind.PROMETHEUS_STOPPED
    held = changed(STATUSES[1].status, rollout=RolloutStatus(state="Held"))
    run.records.append(StatusSeen(BEGAN + 3, 2, held))
    return [fault(BEGAN, kind, FaultPhase.BEGAN), fault(MENDED, kind, FaultPhase.MENDED)]


@pytest.fixture
def run() -> Run:
    return good_run()


def failures(run: Run) -> tuple[str, ...]:
    return judge(run.history()).failures


def test_requests_that_went_with_a_node_are_counted_and_bounded(run: Run) -> None:
    run.records += stopped_node()
    for second in range(4):
        run.answer(BEGAN + second, GATEWAY, "502")
    run.answer(NOTICED + 4, GATEWAY, "timeout", sent=BEGAN + 1)

    judged = judge(run.history())

    assert judged.ok, judged.failures
    (row,) = judged.faults
    # a tenth of 100 requests/s for 4 s and what was in flight, with a margin
    assert (row.lost, row.bound, row.lasted_s) == (5, 108, 6.0)
    assert "10% of the requests until Kubernetes took it for dead, after 4 s" in row.remark


def test_more_than_the_share_of_the_node_is_a_failure(run: Run) -> None:
    run.records += stopped_node()
    for number in range(109):
        run.answer(BEGAN + number / 30, GATEWAY, "502")

    assert "node stopped: 109 requests were lost, at most 108 may be" in failures(run)


@pytest.mark.parametrize("at", [BEGAN - 7, NOTICED + 7])
def test_a_lost_request_at_another_time_is_not_the_nodes(run: Run, at: float) -> None:
    run.records += stopped_node()
    run.answer(at, GATEWAY, "502")

    assert any(text.startswith("1 requests failed with 502") for text in failures(run))


def test_an_error_of_the_server_is_not_the_nodes(run: Run) -> None:
    run.records += stopped_node()
    run.answer(BEGAN + 1, 1, "500")

    assert any(text.startswith("1 requests failed with 500") for text in failures(run))


@pytest.mark.parametrize("kind", [FaultKind.NODE_DRAINED, FaultKind.OPERATOR_KILLED])
def test_a_drain_or_a_killed_operator_costs_no_request(run: Run, kind: FaultKind) -> None:
    run.records += [fault(BEGAN, kind, FaultPhase.BEGAN), fault(MENDED, kind, FaultPhase.MENDED)]
    assert judge(run.history()).ok

    run.answer(BEGAN + 1, GATEWAY, "502")
    assert f"{kind}: 1 requests were lost, at most 0 may be" in failures(run)


def test_what_is_not_mended_is_a_failure(run: Run) -> None:
    run.records += stopped_node()[:2]

    assert failures(run) == ("node stopped, worker: it was not mended",)
    assert fault_rows(run.history())[0].lasted_s is None


def test_without_prometheus_the_rollout_is_held(run: Run) -> None:
    run.replace_records([ROUTES[3]], [replace(ROUTES[3], at=MENDED + 3)])
    run.records += stopped_prometheus(run)

    assert not [text for text in failures(run) if "held" in text]
    assert fault_rows(run.history())[0].remark == "held after 3 s at 25/75 %"


def test_a_weight_that_rises_while_held_is_a_failure(run: Run) -> None:
    run.records += stopped_prometheus(run)
    run.records.append(RouteSeen(BEGAN + 5, {revision(1): 50, revision(2): 50}))

    (found,) = [text for text in failures(run) if "held" in text]
    assert found.startswith("the weights changed to ")


def test_a_rollout_that_nobody_held_is_a_failure(run: Run) -> None:
    run.records += stopped_prometheus(run)
    run.records = [r for r in run.records if getattr(r, "at", 0) != BEGAN + 3]

    assert "the rollout was not held while Prometheus was away" in failures(run)


def storm(run: Run, *kinds: FaultKind) -> None:
    """Have version 2 rolled out in a storm of these blows, all of them mended."""
    second = next(r for r in run.records if isinstance(r, Applied) and r.version == 2)
    run.replace_records([second], [replace(second, stormy=True)])
    for kind in kinds:
        run.records += [
            fault(BEGAN, kind, FaultPhase.BEGAN),
            fault(MENDED, kind, FaultPhase.MENDED),
        ]


def lacking(run: Run) -> list[str]:
    return [text for text in failures(run) if text.startswith("the storm of version 2 lacked")]


@pytest.mark.parametrize("node", [FaultKind.NODE_STOPPED, FaultKind.NODE_DRAINED])
def test_a_storm_has_three_blows(run: Run, node: FaultKind) -> None:
    storm(run, FaultKind.PROMETHEUS_STOPPED, FaultKind.OPERATOR_KILLED, node)

    assert lacking(run) == []


@pytest.mark.parametrize(
    ("struck", "missing"),
    [
        (
            [FaultKind.OPERATOR_KILLED, FaultKind.NODE_STOPPED],
            ["Prometheus stopped"],
        ),
        (
            [FaultKind.PROMETHEUS_STOPPED, FaultKind.NODE_DRAINED],
            ["operator killed"],
        ),
        ([], ["Prometheus stopped", "operator killed", "node drained or node stopped"]),
    ],
)
def test_a_storm_that_lacks_a_blow_is_a_failure(
    run: Run, struck: list[FaultKind], missing: list[str]
) -> None:
    storm(run, *struck)

    assert lacking(run) == [f"the storm of version 2 lacked: {blow}" for blow in missing]


def test_what_breaks_at_another_version_is_no_part_of_a_storm(run: Run) -> None:
    storm(run)
    kind = FaultKind.OPERATOR_KILLED
    run.records += [
        fault(THIRD_APPLIED + 1, kind, FaultPhase.BEGAN),
        fault(THIRD_APPLIED + 2, kind, FaultPhase.MENDED),
    ]

    assert len(lacking(run)) == 3
