"""Invariants of `decide` over generated histories, and the seeded bugs that they must catch."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus, RolloutStatus
from model_operator.api.types import replace as change
from model_operator.core import allocation
from model_operator.core import introduction as introduction_module
from model_operator.core import progress as progress_module
from model_operator.core import rollback as rollback_module
from model_operator.core import rollout as rollout_module
from model_operator.core.decision import (
    BakeEnded,
    Decision,
    HoldBegan,
    HoldEnded,
    Promoted,
    RolledBack,
    StepEntered,
    Superseded,
)
from model_operator.core.mark import Mark
from model_operator.core.observed import (
    NO_ROOM,
    Failure,
    Judgement,
    Observed,
    Request,
    Route,
    Target,
    Workload,
)
from model_operator.core.rollout import decide
from model_operator.core.verdict import Outcome
from model_operator.core.view import View, trial
from tests.builders import NOW, judgement, pause, spec, weight
from tests.invariants import INVARIANTS, Ledger, Moment, check

STEPS = (
    (weight(5), weight(25), weight(50)),
    (weight(20), pause(), weight(60)),
    (pause("5s"), weight(50), pause("20s"), weight(100)),
    (weight(1, "30s"),),
)
REVISIONS = ("digits-a", "digits-b", "digits-c")


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that the world does between two decisions."""

    kind: str
    value: Any = None


HAPPENINGS = st.one_of(
    st.sampled_from([1.0, 3.0, 11.0, 31.0, 70.0]).map(lambda s: Happening("time", s)),
    st.sampled_from(list(Outcome)).map(lambda o: Happening("verdict", o)),
    st.just(Happening("verdict", Outcome.PASS)),
    st.just(Happening("verdict", None)),
    st.just(Happening("settle")),
    st.integers(1, 8).map(lambda times: Happening("march", times)),
    st.integers(1, 8).map(lambda times: Happening("march", times)),
    st.just(Happening("lull")),
    st.sampled_from(REVISIONS).map(lambda r: Happening("target", r)),
    st.tuples(st.sampled_from(REVISIONS), st.integers(0, 3)).map(lambda p: Happening("ready", p)),
    st.sampled_from(REVISIONS).map(lambda r: Happening("definite failure", r)),
    st.booleans().map(lambda accepted: Happening("accepted", accepted)),
    st.just(Happening("route deleted")),
    st.just(Happening("drift")),
    st.sampled_from(REVISIONS).map(lambda r: Happening("stray", r)),
    st.integers(1, 4).map(lambda n: Happening("replicas", n)),
    st.booleans().map(lambda on: Happening("suspend", on)),
    st.sampled_from(STEPS).map(lambda steps: Happening("steps", steps)),
    st.just(Happening("collecting")),
    st.sampled_from(REVISIONS).map(lambda r: Happening("crash loop", r)),
    st.sampled_from(REVISIONS).map(lambda r: Happening("no room", r)),
    st.just(Happening("late regression")),
    st.just(Happening("late regression")),
    st.sampled_from(REVISIONS).map(lambda r: Happening("shrunk", r)),
    st.tuples(st.sampled_from(["promote", "retry", "abort"]), st.sampled_from(REVISIONS)).map(
        lambda p: Happening("request", p)
    ),
)
SPECS = st.builds(
    lambda steps, bake, bake_replicas, then: spec(
        *steps, bake=bake, bake_replicas=bake_replicas, then=then
    ),
    st.sampled_from(STEPS),
    st.sampled_from(["30s", "10m"]),
    st.sampled_from([None, None, 1]),
    st.sampled_from(["Rollback", "Keep"]),
)
HISTORIES = st.tuples(SPECS, st.lists(HAPPENINGS, min_size=5, max_size=60))


class RestlessError(AssertionError):
    """The decisions change something again and again."""


class World:
    """The smallest world in which decisions have consequences."""

    def __init__(self, the_spec: ModelDeploymentSpec) -> None:
        self.spec = the_spec
        self.status = ModelDeploymentStatus()
        self.now = NOW
        self.target = REVISIONS[0]
        self.workloads: dict[str, Workload] = {}
        self.weights: dict[str, int] | None = None
        self.accepted = True
        self.mark: Mark | None = None
        self.outcome: Outcome | None = None
        self.collecting = False
        self.judged: Judgement | None = None
        self.request: Request | None = None
        self.requests = 0

    def observed(self) -> Observed:
        route = None
        if self.weights is not None:
            idle = frozenset(r for r in REVISIONS if self.weights.get(r, 0) == 0)
            route = Route(self.weights, self.accepted, idle, self.mark)
        return Observed(
            name="digits",
            generation=1,
            target=Target(self.target, f"sha256:{self.target}"),
            workloads=dict(self.workloads),
            route=route,
            request=self.request,
        )

    def judge(self) -> Judgement | None:
        present = trial(self.spec, self.status)
        if present is None or self.outcome is None:
            return self.judged
        self.judged = judgement(present, self.outcome)
        if self.collecting and self.outcome is Outcome.INSUFFICIENT:
            verdict = replace(self.judged.verdict, collecting=True)
            self.judged = replace(self.judged, verdict=verdict)
        return self.judged

    def settle(self) -> None:
        """Pods become ready."""
        for revision, workload in self.workloads.items():
            if workload.failure is None or not workload.failure.definite:
                ready = replace(workload, ready=workload.replicas, failure=None)
                self.workloads[revision] = replace(ready, crash_looping=False)

    def happen(self, what: Happening) -> None:  # noqa: C901, PLR0912 - one arm for each kind
        match what.kind, what.value:
            case "time", float(seconds):
                self.now += seconds
            case "verdict", outcome:
                self.outcome, self.collecting = outcome, False
                self.judged = None if outcome is None else self.judged
            case "collecting", _:
                self.outcome, self.collecting = Outcome.INSUFFICIENT, True
            case "suspend", on:
                self.spec = change(self.spec, suspend=on)
            case "steps", steps:
                self.spec = change(self.spec, rollout=change(self.spec.rollout, steps=steps))
            case "crash loop", revision if revision in self.workloads:
                workload = replace(self.workloads[revision], crash_looping=True)
                self.workloads[revision] = workload
            case "no room", revision if revision in self.workloads:
                failure = Failure(NO_ROOM, "0 of 3 nodes", definite=False)
                workload = replace(self.workloads[revision], failure=failure)
                self.workloads[revision] = replace(workload, ready=min(1, workload.ready))
            case "settle", _:
                self.settle()
            case "target", revision:
                self.target = revision
            case "ready", (revision, count) if revision in self.workloads:
                workload = self.workloads[revision]
                self.workloads[revision] = replace(workload, ready=min(count, workload.replicas))
            case "definite failure", revision if revision in self.workloads:
                failure = Failure("DigestMismatch", "digest differs", definite=True)
                self.workloads[revision] = replace(
                    self.workloads[revision], ready=0, failure=failure
                )
            case "accepted", accepted:
                self.accepted = accepted
            case "route deleted", _:
                self.weights = None
            case "drift", _ if self.weights:
                self.weights = dict.fromkeys(self.weights, 0) | {self.target: 100}
            case "stray", revision if self.weights and revision not in self.weights:
                # what has not left the route yet, just when the next step is due
                self.weights = self.weights | {revision: 10}
                self.settle()
                self.now += 31.0
            case "replicas", count:
                self.spec = change(self.spec, replicas=count)
            case "request", (action, revision):
                self.requests += 1
                self.request = Request(str(self.requests), action, revision)

    def moments(self) -> Iterator[Moment]:
        """Decide until nothing changes, carrying out each decision."""
        for _ in range(12):
            observed, judged = self.observed(), self.judge()
            decision = decide(self.spec, self.status, observed, judged, self.now)
            yield Moment(self.spec, self.status, observed, judged, self.now, decision)
            self.write_status(decision)
            self.write_workloads(decision)
            self.write_route(decision)
            if not decision.transitions:
                return
        raise RestlessError

    def write_status(self, decision: Decision) -> None:
        self.status = decision.status

    def write_workloads(self, decision: Decision) -> None:
        for revision, replicas in decision.plan.replicas.items():
            known = self.workloads.get(revision, Workload(0, 0))
            ready = min(known.ready, replicas)
            self.workloads[revision] = replace(known, replicas=replicas, ready=ready)
        for revision in set(self.workloads) - set(decision.plan.replicas):
            del self.workloads[revision]

    def write_route(self, decision: Decision) -> None:
        if decision.plan.weights:
            self.weights = dict(decision.plan.weights)
            self.mark = decision.plan.rolled_back

    def restarted(self) -> tuple[Any, ...]:
        """Where it comes to rest when another operator goes on, which knows no verdict."""
        self.outcome = self.judged = None
        list(self.moments())
        status = self.status
        roles = (status.stable, status.candidate, status.former)
        return (
            self.weights,
            [role.revision if role is not None else None for role in roles],
            (status.candidate.step, status.candidate.percent) if status.candidate else None,
            {entry.revision for entry in status.rolled_back},
        )


def flatten(happenings: list[Happening]) -> Iterator[Happening]:
    """A march is good days in a row, without which no history would get as far as a bake.

    A lull is a metrics source that fails for a while.
    """
    for happening in happenings:
        if happening.kind == "lull":
            yield Happening("verdict", Outcome.ERROR)
            yield Happening("time", 3.0)
            yield Happening("verdict", Outcome.PASS)
            continue
        if happening.kind == "shrunk":
            yield from shrunk(happening.value)
            continue
        if happening.kind == "late regression":
            yield from march(8, 11.0)
            yield Happening("verdict", Outcome.FAIL)
            continue
        if happening.kind != "march":
            yield happening
            continue
        yield from march(happening.value, 31.0)


def march(days: int, seconds: float) -> Iterator[Happening]:
    """Good days in a row."""
    yield Happening("suspend", value=False)
    yield Happening("accepted", value=True)
    yield Happening("verdict", Outcome.PASS)
    for _ in range(days):
        yield Happening("settle")
        yield Happening("time", seconds)


def shrunk(revision: str) -> Iterator[Happening]:
    """An autoscaler takes pods away in the middle of a rollout, and few of the candidate's stay."""
    yield from march(1, 1.0)
    yield Happening("replicas", 4)
    yield Happening("settle")
    yield Happening("target", revision)
    yield Happening("settle")
    yield Happening("replicas", 1)
    for _ in range(5):
        yield Happening("ready", (revision, 1))
        yield Happening("time", 31.0)


def play(
    history: tuple[Any, list[Happening]], which: Collection[str] = tuple(INVARIANTS)
) -> Iterator[tuple[World, Moment]]:
    """Live through a history; the world as it was when each of its decisions was made."""
    the_spec, happenings = history
    world, ledger = World(the_spec), Ledger()
    # a first revision that serves and a second that is on its way, so that histories begin late
    opening = [Happening("settle"), Happening("settle"), Happening("target", REVISIONS[1])]
    opening += [Happening("settle"), Happening("time", 1.0)]
    for happening in [*opening, *flatten(happenings)]:
        world.happen(happening)
        try:
            for moment in world.moments():
                check(moment, ledger, which)
                yield world, moment
            if "I8" in which:
                i8_time_alone_changes_nothing(world)
        except RestlessError:
            if "I8" in which:
                raise
            return


def i8_time_alone_changes_nothing(world: World) -> None:
    """A moment later, and nothing else is new, there is nothing to write."""
    for _ in range(8):
        observed, judged = world.observed(), world.judge()
        decision = decide(world.spec, world.status, observed, judged, world.now)
        if decision.transitions or decision.status != world.status:
            world.write_status(decision)
            world.write_workloads(decision)
            world.write_route(decision)
            continue
        if decision.next_s is not None and decision.next_s <= 0.1:
            return
        later = decide(world.spec, world.status, observed, judged, world.now + 0.05)
        assert later.status == world.status, "a status is written although nothing happened"
        return
    raise RestlessError


def i7_a_crash_changes_nothing(world: World, moment: Moment) -> None:
    """Killed after its first write, an operator leaves what another one brings to the same end.

    The first write is the route where weight is taken away, otherwise the status.
    """
    decision = moment.decision
    whole, broken_off = copy.deepcopy(world), copy.deepcopy(world)
    for write in (whole.write_status, whole.write_workloads, whole.write_route):
        write(decision)
    first = broken_off.write_route if decision.route_first else broken_off.write_status
    first(decision)
    assert broken_off.restarted() == whole.restarted()


PROFILE = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)


def test_every_generated_history_keeps_the_invariants() -> None:
    reached: Counter[str] = Counter()

    @PROFILE
    @given(HISTORIES)
    def holds(history: tuple[Any, list[Happening]]) -> None:
        for _, moment in play(history):
            reached.update(type(t).__name__ for t in moment.decision.transitions)
            if moment.status.former is not None:
                reached.update(f"{type(t).__name__} in a bake" for t in moment.decision.transitions)

    holds()
    assert reached["RolledBack in a bake"] >= 10, reached
    # a generator that never got there would pass as well
    for kind in (RolledBack, HoldBegan, HoldEnded, Superseded, Promoted, BakeEnded):
        assert reached[kind.__name__] >= 10, reached


def test_an_operator_that_dies_leaves_what_another_one_brings_to_the_same_end() -> None:
    crashed: Counter[str] = Counter()

    @PROFILE
    @given(HISTORIES)
    def holds(history: tuple[Any, list[Happening]]) -> None:
        for world, moment in play(history, which=()):
            if moment.decision.transitions:
                i7_a_crash_changes_nothing(world, moment)
                crashed.update(type(t).__name__ for t in moment.decision.transitions)

    holds()
    for kind in (RolledBack, Superseded, StepEntered, Promoted, BakeEnded):
        assert crashed[kind.__name__] >= 10, crashed


def _too_much_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = allocation._weights

    def more(status: ModelDeploymentStatus) -> dict[str, int]:
        weights = whole(status)
        if status.candidate and status.candidate.revision in weights:
            weights[status.candidate.revision] += 1
        return weights

    monkeypatch.setattr(allocation, "_weights", more)


def _rise_without_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_running", lambda *_: None)


def _failure_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback_module, "is_rolled_back", lambda *_: False)
    monkeypatch.setattr(introduction_module, "is_rolled_back", lambda *_: False)


def _errors_count_as_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(view: View, _: Any) -> rollback_module.Cause | None:
        if view.status.rollout.state == "Held":
            return rollback_module.Cause("InsufficientData", "held")
        return None

    monkeypatch.setattr(rollback_module, "_evidence_missing", impatient)


def _gate_before_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    now = rollback_module.rollback

    def gated(view: View) -> Any:
        route = view.observed.route
        return now(view) if route is not None and route.accepted else None

    monkeypatch.setattr(rollout_module, "rollback", gated)


def _weight_without_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "needed", lambda *_: 0)


def _time_counts_without_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_weakened", lambda *_: None)


def _pods_gone_before_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_leaving", lambda *_: {})


def _stable_below_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "floor", lambda *_: 1)


def _weight_beside_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (introduction_module, progress_module):
        monkeypatch.setattr(module, "foreign_weight", lambda *_: False)
        monkeypatch.setattr(progress_module, "_unconfirmed", lambda *_: None)


def _comes_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_module, "_next_s", lambda *_: 0.0)


def _drift_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = allocation.make_plan

    def lenient(the_spec: Any, status: Any, observed: Observed, *, mark: Mark | None) -> Any:
        made = plan(the_spec, status, observed, mark=mark)
        live = observed.route.weights if observed.route is not None else {}
        return replace(made, weights=live) if set(live) == set(made.weights) else made

    monkeypatch.setattr(rollout_module, "make_plan", lenient)


def _late_regression_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback_module, "_of_baking", lambda _: None)


def _floor_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "floor", property(lambda view: view.spec.replicas))


def _new_time_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(view: View, state: Any, reason: str = "", message: str = "") -> RolloutStatus:
        return RolloutStatus(state=state, reason=reason, message=message, since_time=view.time)

    monkeypatch.setattr(View, "state", state)


def _silent_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    loud = rollback_module.rollback

    def silent(view: View) -> Any:
        change = loud(view)
        return replace(change, transitions=()) if change is not None else None

    monkeypatch.setattr(rollout_module, "rollback", silent)


def _no_mark_on_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = allocation.make_plan

    def unmarked(the_spec: Any, status: Any, observed: Observed, *, mark: Mark | None) -> Any:
        del mark
        return plan(the_spec, status, observed, mark=None)

    monkeypatch.setattr(rollout_module, "make_plan", unmarked)


@pytest.mark.parametrize(
    ("invariant", "seed"),
    [
        ("I1", _too_much_weight),
        ("I2", _rise_without_a_verdict),
        ("I3", _weight_without_pods),
        ("I3", _time_counts_without_pods),
        ("I3", _floor_of_the_moment),
        ("I4", _failure_forgotten),
        ("I5", _pods_gone_before_the_route),
        ("I5", _stable_below_its_floor),
        ("I6", _weight_beside_a_stranger),
        ("I8", _comes_again_at_once),
        ("I8", _new_time_at_every_look),
        ("I9", _drift_is_taken_over),
        ("I10", _silent_rollback),
        ("I11", _errors_count_as_missing_data),
        ("I12", _gate_before_rollback),
        ("I12", _late_regression_ignored),
    ],
)
def test_a_seeded_bug_is_caught_by_its_own_invariant(
    invariant: str, seed: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(monkeypatch)

    @PROFILE
    @given(HISTORIES)
    def holds(history: tuple[Any, list[Happening]]) -> None:
        for _ in play(history, which=(invariant,)):
            pass

    with pytest.raises(AssertionError):
        holds()


def test_i7_catches_a_rollback_that_a_crash_undoes(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_mark_on_the_route(monkeypatch)

    @PROFILE
    @given(HISTORIES)
    def holds(history: tuple[Any, list[Happening]]) -> None:
        for world, moment in play(history, which=()):
            if moment.decision.transitions:
                i7_a_crash_changes_nothing(world, moment)

    with pytest.raises(AssertionError):
        holds()
