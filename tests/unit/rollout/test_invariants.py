"""Invariants of `decide` over generated histories, and the seeded bugs that they must catch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus
from model_operator.core import allocation
from model_operator.core import introduction as introduction_module
from model_operator.core import progress as progress_module
from model_operator.core import rollback as rollback_module
from model_operator.core import rollout as rollout_module
from model_operator.core.decision import (
    BakeEnded,
    HoldBegan,
    HoldEnded,
    Promoted,
    RolledBack,
    Superseded,
)
from model_operator.core.observed import (
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
from tests.invariants import Ledger, Moment, check

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
    st.sampled_from(REVISIONS).map(lambda r: Happening("target", r)),
    st.tuples(st.sampled_from(REVISIONS), st.integers(0, 3)).map(lambda p: Happening("ready", p)),
    st.sampled_from(REVISIONS).map(lambda r: Happening("definite failure", r)),
    st.booleans().map(lambda accepted: Happening("accepted", accepted)),
    st.just(Happening("route deleted")),
    st.just(Happening("drift")),
    st.integers(1, 4).map(lambda n: Happening("replicas", n)),
    st.tuples(st.sampled_from(["promote", "retry", "abort"]), st.sampled_from(REVISIONS)).map(
        lambda p: Happening("request", p)
    ),
)
HISTORIES = st.tuples(st.sampled_from(STEPS), st.lists(HAPPENINGS, min_size=5, max_size=60))


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
        self.mark: str | None = None
        self.outcome: Outcome | None = None
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
        return self.judged

    def settle(self) -> None:
        """Pods become ready."""
        for revision, workload in self.workloads.items():
            if workload.failure is None:
                self.workloads[revision] = replace(workload, ready=workload.replicas)

    def happen(self, what: Happening) -> None:  # noqa: C901 - one arm for each kind
        match what.kind, what.value:
            case "time", float(seconds):
                self.now += seconds
            case "verdict", outcome:
                self.outcome = outcome
                self.judged = None if outcome is None else self.judged
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
            case "replicas", count:
                self.spec = spec(*self.spec.rollout.steps, replicas=count)
            case "request", (action, revision):
                self.requests += 1
                self.request = Request(str(self.requests), action, revision)

    def moments(self) -> Iterator[Moment]:
        """Decide until nothing changes, carrying out each decision."""
        for _ in range(12):
            observed, judged = self.observed(), self.judge()
            decision = decide(self.spec, self.status, observed, judged, self.now)
            yield Moment(self.spec, self.status, observed, judged, self.now, decision)
            self.status = decision.status
            for revision, replicas in decision.plan.replicas.items():
                known = self.workloads.get(revision, Workload(0, 0))
                ready = min(known.ready, replicas)
                self.workloads[revision] = replace(known, replicas=replicas, ready=ready)
            for revision in set(self.workloads) - set(decision.plan.replicas):
                del self.workloads[revision]
            if decision.plan.weights:
                self.weights = dict(decision.plan.weights)
                self.mark = decision.plan.rolled_back
            if not decision.transitions:
                return
        pytest.fail("the decisions do not come to rest")


def flatten(happenings: list[Happening]) -> Iterator[Happening]:
    """A march is good days in a row, without which no history would get as far as a bake."""
    for happening in happenings:
        if happening.kind != "march":
            yield happening
            continue
        yield Happening("accepted", value=True)
        yield Happening("verdict", Outcome.PASS)
        for _ in range(happening.value):
            yield Happening("settle")
            yield Happening("time", 31.0)


def run(history: tuple[Any, list[Happening]], reached: Counter[str] | None = None) -> None:
    steps, happenings = history
    world, ledger = World(spec(*steps)), Ledger()
    # a first revision that serves and a second that is on its way, so that histories begin late
    opening = [Happening("settle"), Happening("settle"), Happening("target", REVISIONS[1])]
    opening += [Happening("settle"), Happening("time", 1.0)]
    for happening in [*opening, *flatten(happenings)]:
        world.happen(happening)
        for moment in world.moments():
            check(moment, ledger)
            if reached is not None:
                reached.update(type(t).__name__ for t in moment.decision.transitions)


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
        run(history, reached)

    holds()
    # a generator that never got there would pass as well
    for kind in (RolledBack, HoldBegan, HoldEnded, Superseded, Promoted, BakeEnded):
        assert reached[kind.__name__] >= 10, reached


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


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(_too_much_weight, id="I1"),
        pytest.param(_rise_without_a_verdict, id="I2"),
        pytest.param(_failure_forgotten, id="I4"),
        pytest.param(_errors_count_as_missing_data, id="I11"),
        pytest.param(_gate_before_rollback, id="I12"),
    ],
)
def test_a_seeded_bug_is_caught(seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(monkeypatch)

    @PROFILE
    @given(HISTORIES)
    def holds(history: tuple[Any, list[Happening]]) -> None:
        run(history)

    with pytest.raises(AssertionError):
        holds()
