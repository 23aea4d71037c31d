"""Histories that break an invariant each, which the check over whole scenes must not let pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hack.demo.history import History, Outcome, Record, RevisionSeen, RouteSeen, StatusSeen
from hack.demo.loadgen.answers import GATEWAY, Cell, Window
from model_operator.api.times import format_time
from model_operator.api.types import (
    CandidateStatus,
    Evidence,
    FormerStatus,
    ModelDeploymentStatus,
    ModelRevisionStatus,
    RolledBackStatus,
    RolloutStatus,
)
from model_operator.api.types import replace as changed
from tests.e2e.history_invariants import check, violations
from tests.e2e.witness import Told
from tests.unit.demo import histories
from tests.unit.demo.histories import digest, revision

START = 1000.0
FIRST_HALF, HALF, WHOLE, CONFIRMED, LET_GO = 1012.0, 1020.0, 1030.0, 1033.0, 1040.0
THIRD, BAD, OFF, END = 1052.0, 1060.0, 1061.0, 1070.0
FLOOR = 2
HOLD_S = 6.0
ONE, TWO, THREE = revision(1), revision(2), revision(3)

TOLD = (
    Told("Promoted", f"{ONE} is stable"),
    Told("Promoted", f"{TWO} is stable instead of {ONE}"),
    Told("RolledBack", f"{THREE}: AnalysisFailed: errors"),
)


def candidate(version: int, percent: int, ready: int = 1) -> CandidateStatus:
    trial = histories.candidate(version, percent, ready=ready, replicas=ready)
    return changed(trial, floor_replicas=FLOOR)


def evidence(at: float, verdict: str, percent: int) -> Evidence:
    entry = Evidence(metric="errors", verdict="pass", step=0, percent=percent, time=format_time(at))
    return changed(entry, verdict=verdict)


def record(*entries: Evidence, rolled_back: bool = False) -> ModelRevisionStatus:
    at = format_time(OFF)
    return ModelRevisionStatus(
        evidence=entries,
        verdict=entries[-1].verdict if entries else "",
        promoted_time=None if rolled_back else at,
        rolled_back_time=at if rolled_back else None,
        rolled_back_reason="AnalysisFailed" if rolled_back else None,
    )


def gone() -> ModelDeploymentStatus:
    status = histories.status(2, {2: (100, 100), 3: (0, 0)})
    entry = RolledBackStatus(
        revision=THREE, reason="AnalysisFailed", message="errors", time=format_time(OFF)
    )
    return changed(status, rolled_back=(entry,))


FORMER = FormerStatus(revision=ONE)


def baking() -> ModelDeploymentStatus:
    status = histories.status(2, {2: (100, 50), 1: (0, 50)})
    return changed(status, former=FormerStatus(revision=ONE))


PASSED_FIRST = evidence(HALF - 0.1, "pass", 5)
PASSED_HALF = evidence(WHOLE - 0.1, "pass", 50)
FAILED = evidence(BAD, "fail", 5)

STATUSES = {
    "first": StatusSeen(START + 2, 1, histories.status(1, {1: (100, 100)})),
    "preflight": StatusSeen(
        FIRST_HALF - 2, 2, histories.status(1, {1: (100, 100)}, candidate=candidate(2, 0))
    ),
    "5 %": StatusSeen(
        FIRST_HALF, 2, histories.status(1, {1: (95, 95), 2: (5, 5)}, candidate=candidate(2, 5))
    ),
    "50 %": StatusSeen(
        HALF, 2, histories.status(1, {1: (50, 50), 2: (50, 50)}, candidate=candidate(2, 50))
    ),
    "both": StatusSeen(
        HALF + 4, 2, histories.status(1, {1: (50, 50), 2: (50, 50)}, candidate=candidate(2, 50, 2))
    ),
    "promoted": StatusSeen(WHOLE, 2, baking()),
    "confirmed": StatusSeen(
        CONFIRMED,
        2,
        changed(histories.status(2, {2: (100, 100)}), former=FormerStatus(revision=ONE)),
    ),
    "let go": StatusSeen(LET_GO, 2, histories.status(2, {2: (100, 100)})),
    "third": StatusSeen(
        THIRD, 3, histories.status(2, {2: (95, 95), 3: (5, 5)}, candidate=candidate(3, 5))
    ),
    "rolled back": StatusSeen(OFF, 3, gone()),
}
ROUTES = {
    "first": RouteSeen(START + 2, {ONE: 100}),
    "5 %": RouteSeen(FIRST_HALF + 0.02, {ONE: 95, TWO: 5}),
    "50 %": RouteSeen(HALF + 0.02, {ONE: 50, TWO: 50}),
    "promoted": RouteSeen(WHOLE + 0.02, {TWO: 100}),
    "third": RouteSeen(THIRD + 0.02, {TWO: 95, THREE: 5}),
    "rolled back": RouteSeen(OFF - 0.02, {TWO: 100, THREE: 0}),
}
REVISIONS = {
    "one": RevisionSeen(START + 2, ONE, digest(1), record()),
    "two": RevisionSeen(HALF + 0.1, TWO, digest(2), record(PASSED_FIRST)),
    "promoted": RevisionSeen(WHOLE + 0.1, TWO, digest(2), record(PASSED_FIRST, PASSED_HALF)),
    "rolled back": RevisionSeen(OFF + 0.1, THREE, digest(3), record(FAILED, rolled_back=True)),
}


@dataclass(slots=True)
class Scene:
    """A good rollout and a bad one, which a test may spoil."""

    statuses: dict[str, StatusSeen] = field(default_factory=lambda: dict(STATUSES))
    routes: dict[str, RouteSeen] = field(default_factory=lambda: dict(ROUTES))
    revisions: dict[str, RevisionSeen] = field(default_factory=lambda: dict(REVISIONS))
    cells: list[Cell] = field(default_factory=list)

    def history(self) -> History:
        applied: list[Record] = [
            histories.applied(1, START, Outcome.PROMOTED),
            replace(histories.applied(2, FIRST_HALF - 3, Outcome.PROMOTED), steps=(5, 50)),
            replace(
                histories.applied(3, THIRD - 2, Outcome.ROLLED_BACK), steps=(5, 50), hold_s=HOLD_S
            ),
        ]
        return History.of(
            [
                *applied,
                *self.statuses.values(),
                *self.routes.values(),
                *self.revisions.values(),
                Window(0, START, START, END - START, 1, 0, tuple(self.cells)),
            ]
        )

    def answer(self, at: float, name: str, code: str = "200") -> None:
        self.cells.append(Cell(name, code, 1, 1, at, at, (5.0,)))

    def say(self, name: str, status: ModelDeploymentStatus) -> None:
        self.statuses[name] = replace(self.statuses[name], status=status)


def judged(scene: Scene, told: Iterable[Told] | None = TOLD) -> list[str]:
    return violations(scene.history(), told=None if told is None else tuple(told))


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.answer(START + 3, ONE)
    scene.answer(FIRST_HALF + 1, TWO)
    scene.answer(THIRD + 1, THREE, "500")
    return scene


def test_a_scene_as_promised_keeps_every_invariant(scene: Scene) -> None:
    check(scene.history(), told=TOLD)


def test_an_empty_history_breaks_nothing() -> None:
    check(History(), told=())


def weights_of_101(scene: Scene) -> None:
    scene.say("5 %", histories.status(1, {1: (96, 96), 2: (5, 5)}, candidate=candidate(2, 5)))
    scene.routes["5 %"] = RouteSeen(FIRST_HALF + 0.02, {ONE: 96, TWO: 5})


def above_its_plan(scene: Scene) -> None:
    half = histories.status(1, {1: (40, 40), 2: (60, 60)}, candidate=candidate(2, 60, 2))
    for name in ("50 %", "both"):
        scene.say(name, half)
    scene.routes["50 %"] = RouteSeen(HALF + 0.02, {ONE: 40, TWO: 60})


def no_verdict_at_the_step(scene: Scene) -> None:
    scene.revisions["two"] = replace(REVISIONS["two"], status=record())
    scene.revisions["promoted"] = replace(REVISIONS["promoted"], status=record(PASSED_HALF))


def verdict_of_another_weight(scene: Scene) -> None:
    wrong = evidence(WHOLE - 0.1, "pass", 5)
    scene.revisions["promoted"] = replace(REVISIONS["promoted"], status=record(PASSED_FIRST, wrong))


def one_metric_without_data(scene: Scene) -> None:
    unknown = changed(evidence(WHOLE - 0.1, "insufficient", 50), metric="latency")
    scene.revisions["promoted"] = replace(
        REVISIONS["promoted"], status=record(PASSED_FIRST, PASSED_HALF, unknown)
    )


def a_step_left_out(scene: Scene) -> None:
    for name in ("5 %", "50 %"):
        del scene.routes[name]
        del scene.statuses[name]
    scene.routes["50 %"] = RouteSeen(HALF + 4.02, {ONE: 50, TWO: 50})
    scene.cells.pop(1)


def weight_without_pods(scene: Scene) -> None:
    none_ready = histories.candidate(2, 5, ready=0, replicas=1)
    scene.say(
        "5 %",
        histories.status(
            1, {1: (95, 95), 2: (5, 5)}, candidate=changed(none_ready, floor_replicas=FLOOR)
        ),
    )


def promoted_with_too_few(scene: Scene) -> None:
    status = baking()
    assert status.stable is not None
    scene.say("promoted", changed(status, stable=changed(status.stable, ready_replicas=1)))


def back_on_the_route(scene: Scene) -> None:
    scene.routes["again"] = RouteSeen(OFF + 3, {TWO: 95, THREE: 5})
    listed = changed(gone(), traffic=histories.status(2, {2: (95, 95), 3: (5, 5)}).traffic)
    scene.statuses["again"] = StatusSeen(OFF + 3, 3, listed)


def forgotten(scene: Scene) -> None:
    scene.statuses["again"] = StatusSeen(OFF + 3, 3, histories.status(2, {2: (100, 100)}))


def failed_and_kept(scene: Scene) -> None:
    failed = replace(REVISIONS["rolled back"], at=OFF - 3.9)
    early = changed(FAILED, time=format_time(OFF - 4))
    scene.revisions["rolled back"] = replace(failed, status=record(early, rolled_back=True))


def late_request(scene: Scene) -> None:
    scene.answer(CONFIRMED + 1, ONE)


def early_request(scene: Scene) -> None:
    scene.answer(FIRST_HALF - 1, TWO)


def stable_scaled_down(scene: Scene) -> None:
    status = STATUSES["50 %"].status
    assert status.stable is not None
    scene.say("50 %", changed(status, stable=changed(status.stable, replicas=1)))


def _with_ready(name: str, ready: int) -> ModelDeploymentStatus:
    status = STATUSES[name].status
    assert status.stable is not None
    return changed(status, stable=changed(status.stable, ready_replicas=ready))


def stable_pod_taken(scene: Scene) -> None:
    scene.say("50 %", _with_ready("50 %", 1))


def pod_taken_in_the_bake(scene: Scene) -> None:
    baking_still = _with_ready("confirmed", 1)
    assert baking_still.former is not None
    scene.say("confirmed", changed(baking_still, former=changed(FORMER, floor_replicas=FLOOR)))


def stable_answers_500(scene: Scene) -> None:
    scene.answer(HALF + 1, ONE, "500")


def gateway_answers_502(scene: Scene) -> None:
    scene.answer(HALF + 1, GATEWAY, "502")


def two_candidates(scene: Scene) -> None:
    weights = histories.status(1, {1: (45, 45), 2: (50, 50), 3: (5, 5)}, candidate=candidate(2, 50))
    scene.say("50 %", weights)
    scene.routes["50 %"] = RouteSeen(HALF + 0.02, {ONE: 45, TWO: 50, THREE: 5})


def drift_left_alone(scene: Scene) -> None:
    scene.routes["drift"] = RouteSeen(HALF + 3, {ONE: 50, TWO: 77})
    scene.routes["undone"] = RouteSeen(HALF + 7, {ONE: 50, TWO: 50})


def drift_at_the_end(scene: Scene) -> None:
    scene.routes["drift"] = RouteSeen(END - 4, {TWO: 50, ONE: 50})


def no_reason(scene: Scene) -> None:
    status = gone()
    entry = changed(status.rolled_back[0], reason="", message="")
    scene.say("rolled back", changed(status, rolled_back=(entry,)))


def no_record(scene: Scene) -> None:
    scene.revisions["rolled back"] = RevisionSeen(OFF + 0.1, THREE, digest(3), record(FAILED))


def no_failing_evidence(scene: Scene) -> None:
    passed = evidence(BAD, "pass", 5)
    scene.revisions["rolled back"] = replace(
        REVISIONS["rolled back"], status=record(passed, rolled_back=True)
    )


def promotion_not_recorded(scene: Scene) -> None:
    unknown = changed(record(PASSED_FIRST, PASSED_HALF), promoted_time=None)
    scene.revisions["promoted"] = replace(REVISIONS["promoted"], status=unknown)


def blind(since: float, **changes: Any) -> StatusSeen:
    """Prometheus is away while the third version has its first weight."""
    away = RolloutStatus(state="Held", reason="MetricsUnavailable", since_time=format_time(since))
    status = changed(STATUSES["third"].status, rollout=away)
    return StatusSeen(since, 3, changed(status, **changes))


def gone_for(reason: str) -> ModelDeploymentStatus:
    status = gone()
    return changed(status, rolled_back=(changed(status.rolled_back[0], reason=reason),))


def blind_rollback(scene: Scene) -> None:
    scene.statuses["blind"] = blind(BAD + 0.5)


def rolled_back_by_time(scene: Scene) -> None:
    scene.statuses["blind"] = blind(BAD - 4)
    scene.say("rolled back", gone_for("MetricsUnavailable"))


def no_data_too_soon(scene: Scene) -> None:
    without_data(scene, OFF - HOLD_S + 1)


def no_data_since_never(scene: Scene) -> None:
    without_data(scene, None)


def without_data(scene: Scene, since: float | None) -> None:
    """The third version is rolled back at `OFF` for want of samples."""
    trial = candidate(3, 5)
    if since is not None:
        trial = changed(trial, insufficient_since_time=format_time(since))
    scene.say("third", changed(STATUSES["third"].status, candidate=trial))
    scene.say("rolled back", gone_for("InsufficientData"))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (weights_of_101, "I1: status wanted"),
        (above_its_plan, "I1: "),
        (no_verdict_at_the_step, "I2: "),
        (verdict_of_another_weight, "I2: "),
        (one_metric_without_data, "I2: "),
        (a_step_left_out, "I2: "),
        (weight_without_pods, "I3: "),
        (promoted_with_too_few, "I3: "),
        (back_on_the_route, "I4: .* although it was rolled back"),
        (forgotten, "I4: .* was forgotten"),
        (failed_and_kept, "I4: .* after it failed"),
        (late_request, "I4: requests reached"),
        (early_request, "I4: requests reached"),
        (stable_scaled_down, "I5: .* was to have 1 pods"),
        (stable_pod_taken, "I5: .* had 1 ready pods of 2"),
        (pod_taken_in_the_bake, "I5: .* had 1 ready pods of 2"),
        (stable_answers_500, "I5: 1 requests failed .* 500 from digits"),
        (gateway_answers_502, "I5: 1 requests failed .* 502 from gateway"),
        (two_candidates, "I6: "),
        (drift_left_alone, "I9: "),
        (drift_at_the_end, "I9: "),
        (no_reason, "I10: .* no reason"),
        (no_record, "I10: the record"),
        (no_failing_evidence, "I10: .* without failing evidence"),
        (promotion_not_recorded, "I10: the record"),
        (blind_rollback, "I11: .* for AnalysisFailed .* unavailable"),
        (rolled_back_by_time, "I11: .* for MetricsUnavailable .* unavailable"),
        (no_data_too_soon, "I11: .* after 5.0 s without evidence, its spec says 6 s"),
        (no_data_since_never, "I11: .* after 0.0 s without evidence"),
    ],
)
def test_a_broken_invariant_is_found(
    scene: Scene, spoil: Callable[[Scene], None], found: str
) -> None:
    spoil(scene)
    with pytest.raises(AssertionError, match=found):
        check(scene.history(), told=TOLD)


@pytest.mark.parametrize("missing", TOLD[1:])
def test_an_end_that_no_event_told_of_is_found(scene: Scene, missing: Told) -> None:
    (found,) = judged(scene, [event for event in TOLD if event != missing])
    assert found.startswith("I10: no event told that")


def test_events_are_not_missed_when_nobody_looked_at_them(scene: Scene) -> None:
    assert judged(scene, told=None) == []


def test_drift_that_is_undone_at_once_is_none(scene: Scene) -> None:
    scene.routes["drift"] = RouteSeen(HALF + 3, {ONE: 50, TWO: 77})
    scene.routes["undone"] = RouteSeen(HALF + 3.8, {ONE: 50, TWO: 50})
    assert judged(scene) == []


def test_drift_to_0_and_back_is_no_rise_without_a_verdict(scene: Scene) -> None:
    scene.routes["drift"] = RouteSeen(HALF + 3, {ONE: 100})
    scene.routes["undone"] = RouteSeen(HALF + 3.8, {ONE: 50, TWO: 50})
    assert judged(scene) == []


def test_what_a_dead_candidates_gateway_answers_is_the_candidates(scene: Scene) -> None:
    scene.routes["rolled back"] = RouteSeen(OFF - 0.02, {TWO: 100})
    scene.answer(OFF - 0.5, GATEWAY, "502")
    assert judged(scene) == []


def test_time_stands_still_while_the_scene_disturbs(scene: Scene) -> None:
    drift_left_alone(scene)
    no_verdict_at_the_step(scene)
    disturbed = [(HALF - 0.5, HALF + 0.5), (HALF + 2.5, HALF + 6.5)]
    assert violations(scene.history(), told=TOLD, disturbed=disturbed) == []
    assert violations(scene.history(), told=TOLD, disturbed=disturbed[:1]) != []


def test_requests_that_the_scene_broke_are_counted_against_its_bound(scene: Scene) -> None:
    for at in (HALF + 1, HALF + 2):
        scene.answer(at, GATEWAY, "timeout")
    assert violations(scene.history(), told=TOLD, lost=2) == []
    (found,) = violations(scene.history(), told=TOLD, lost=1)
    assert found.startswith("I5: 2 requests failed that no candidate answered, 1 were")


def test_a_held_rollout_with_nowhere_to_go_keeps_its_weight(scene: Scene) -> None:
    failed_and_kept(scene)
    held = changed(
        STATUSES["third"].status, rollout=RolloutStatus(state="Held", reason="NoHealthyTarget")
    )
    scene.statuses["held"] = StatusSeen(OFF - 3.9, 3, held)
    assert judged(scene) == []


def test_the_way_back_to_a_warm_revision_needs_no_steps_and_no_verdict(scene: Scene) -> None:
    warm = changed(candidate(2, 50), warm=True)
    half = histories.status(1, {1: (50, 50), 2: (50, 50)}, candidate=warm)
    begun = changed(STATUSES["preflight"].status, candidate=changed(warm, percent=0))
    scene.say("preflight", begun)
    scene.say("5 %", half)
    scene.say("50 %", half)
    scene.say("both", changed(half, candidate=changed(candidate(2, 50, 2), warm=True)))
    del scene.routes["5 %"]
    scene.routes["50 %"] = RouteSeen(FIRST_HALF + 0.02, {ONE: 50, TWO: 50})
    no_verdict_at_the_step(scene)

    assert judged(scene) == []


TAKEN = [(HALF - 1, HALF + 1)]


@pytest.mark.parametrize("blow", [{"drained": TAKEN}, {"disturbed": TAKEN}], ids=list)
def test_a_blow_leaves_a_ready_pod_and_may_be_felt_after_it(
    scene: Scene, blow: dict[str, Any]
) -> None:
    scene.say("50 %", _with_ready("50 %", 1))
    scene.say("both", _with_ready("both", 1))
    assert violations(scene.history(), told=TOLD, **blow) == []

    scene.say("50 %", _with_ready("50 %", 0))
    (found,) = violations(scene.history(), told=TOLD, **blow)
    assert found.startswith("I5: ")


def test_a_pod_that_goes_after_a_drain_is_taken_by_something_else(scene: Scene) -> None:
    scene.say("both", _with_ready("both", 1))

    (found,) = violations(scene.history(), told=TOLD, drained=TAKEN)

    assert found.startswith("I5: ")


def write_the_same_status(scene: Scene) -> None:
    scene.statuses["again"] = replace(STATUSES["rolled back"], at=END - 1)


def write_the_same_route(scene: Scene) -> None:
    scene.routes["again"] = replace(ROUTES["rolled back"], at=END - 1)


def write_the_same_record(scene: Scene) -> None:
    scene.revisions["again"] = replace(REVISIONS["rolled back"], at=END - 1)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (write_the_same_status, "the status"),
        (write_the_same_route, "the route"),
        (write_the_same_record, f"the record of {THREE}"),
    ],
)
def test_a_write_at_rest_is_found(scene: Scene, write: Callable[[Scene], None], what: str) -> None:
    rested = [(END - 3, END)]
    assert violations(scene.history(), told=TOLD, rested=rested) == []

    write(scene)

    (found,) = violations(scene.history(), told=TOLD, rested=rested)
    assert found.startswith(f"I8: {what} was written")


def test_a_pod_that_comes_or_goes_is_told_of_at_rest(scene: Scene) -> None:
    scene.statuses["again"] = replace(
        STATUSES["rolled back"], at=END - 1, status=_with_ready("rolled back", 1)
    )

    assert violations(scene.history(), told=TOLD, rested=[(END - 3, END)]) == []


def test_a_failure_that_the_metrics_tell_of_when_they_are_back_counts(scene: Scene) -> None:
    scene.statuses["blind"] = blind(BAD - 1)

    assert judged(scene) == []


def test_a_crash_is_no_matter_of_metrics(scene: Scene) -> None:
    scene.statuses["blind"] = blind(BAD + 0.5)
    scene.say("rolled back", gone_for("ReadinessCollapsed"))

    assert judged(scene) == []


def test_after_its_time_missing_evidence_does_what_the_spec_says(scene: Scene) -> None:
    without_data(scene, OFF - HOLD_S)

    assert judged(scene) == []
