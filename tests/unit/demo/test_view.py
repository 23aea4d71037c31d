from io import StringIO

import pytest
from rich.console import Console

from hack.demo.history import History, Record, RevisionSeen, StatusSeen
from hack.demo.loadgen.answers import GATEWAY
from hack.demo.screen import Screen, changes
from hack.demo.view import view
from model_operator.api.times import format_time
from model_operator.api.types import Evidence, ModelRevisionStatus, RolloutStatus, replace
from tests.unit.demo.histories import (
    THIRD_WEIGHT,
    Run,
    candidate,
    digest,
    good_run,
    revision,
    status,
)

NOW = THIRD_WEIGHT + 4.5


@pytest.fixture
def run() -> Run:
    """The run four and a half seconds after the third version got its first weight."""
    run = good_run()
    run.records = [record for record in run.records if getattr(record, "at", 0.0) <= NOW]
    run.windows = [window for window in run.windows if window.start_time < NOW]
    return run


def on_trial() -> list[Record]:
    """What the operator says of the third version then."""
    state = RolloutStatus(state="Progressing", reason="StepRunning", message="12 of 50 events")
    trial = replace(candidate(3, 5), next_action_time=format_time(NOW + 6))
    evidence = Evidence(
        metric="errors",
        verdict="fail",
        step=0,
        percent=5,
        time=format_time(NOW),
        value="0.31",
        threshold="0.01",
        samples=52,
        message="errors: 16 of 52",
    )
    return [
        StatusSeen(
            NOW - 0.1,
            3,
            status(2, {2: (95, 95), 3: (5, None)}, candidate=trial, state=state),
        ),
        RevisionSeen(NOW - 0.1, revision(3), digest(3), ModelRevisionStatus(evidence=(evidence,))),
    ]


def test_each_revision_has_its_role_weight_and_pods(run: Run) -> None:
    run.records += on_trial()

    first, second, third = view(run.history(), NOW).revisions

    assert (first.version, first.role, first.percent, first.ready) == (1, "", 0, None)
    assert (second.role, second.percent, second.confirmed) == ("stable", 95, 95)
    assert (third.role, third.percent, third.confirmed) == ("candidate", 5, None)
    assert (third.ready, third.replicas) == (1, 1)


def test_rates_and_errors_are_those_of_the_last_seconds(run: Run) -> None:
    second, third = view(run.history(), NOW).revisions[1:]

    assert second.rate == pytest.approx(95, abs=2)
    assert third.rate == pytest.approx(5, abs=1)
    assert third.error_share == pytest.approx(1 / 3, abs=0.1)
    assert second.error_share == 0
    assert second.p99_ms == 5.0


def test_it_tells_the_verdict_and_when_the_next_step_is_due(run: Run) -> None:
    run.records += on_trial()

    moment = view(run.history(), NOW)

    assert moment.state == "Progressing: StepRunning: 12 of 50 events"
    assert moment.verdicts == ("errors at 5 %: fail: 16 of 52",)
    assert moment.next_step_s == pytest.approx(6, abs=0.01)


def test_errors_that_no_revision_answered_are_told_apart(run: Run) -> None:
    run.answer(NOW - 1, GATEWAY, "502")

    assert view(run.history(), NOW).gateway_errors == 1


def test_before_the_first_record_there_is_nothing_to_show() -> None:
    moment = view(History(), NOW)

    assert (moment.revisions, moment.verdicts, moment.next_step_s) == ((), (), None)


def test_a_log_has_a_line_for_each_change_and_none_for_what_stays(run: Run) -> None:
    text = StringIO()
    with Screen(Console(file=text, width=200)) as screen:
        screen.update(run.history())
        before = text.getvalue().splitlines()
        screen.update(run.history())
        unchanged = text.getvalue().splitlines()
        run.records += on_trial()
        screen.update(run.history())
    after = text.getvalue().splitlines()

    assert unchanged == before
    assert [line.split(" ", 1)[1] for line in after[len(before) :]] == [
        f"v3 {revision(3)} candidate: weight 5 % (not confirmed yet), 1/1 ready",
        "Progressing: StepRunning: 12 of 50 events",
        "errors at 5 %: fail: 16 of 52",
    ]


def test_a_terminal_has_a_table_with_every_revision_and_what_is_awaited(run: Run) -> None:
    run.records += on_trial()
    text = StringIO()
    console = Console(file=text, width=140, force_terminal=True)

    with Screen(console) as screen:
        screen.awaiting("version 3 to be rolled back", 30)
        screen.update(run.history())

    shown = text.getvalue()
    for words in (revision(2), revision(3), "candidate", "waiting for version 3 to be rolled back"):
        assert words in shown


def test_a_line_says_that_a_revision_answers_errors(run: Run) -> None:
    assert f"v3 {revision(3)} has answered errors" in changes(view(run.history(), NOW))


def test_a_log_has_few_lines_of_many_gateway_errors(run: Run) -> None:
    lines = set()
    for _ in range(100):
        run.answer(NOW - 1, GATEWAY, "502")
        lines |= {line for line in changes(view(run.history(), NOW)) if "gateway" in line}

    assert lines == {f"{1 << power} gateway errors or more" for power in range(7)}
