"""A world in virtual time: pods, a gateway, users and a metrics source around the real core.

The decision, the analysis and the status's way through JSON are the operator's own. What is
simulated is what Kubernetes, the gateway and Prometheus do, in steps of a quarter of a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from model_operator.api.parse import parse_status, to_manifest
from model_operator.api.samples import Answer, Failure, FailureKind, Query, Samples, Series
from model_operator.api.types import ModelDeploymentSpec, ModelDeploymentStatus
from model_operator.core import observed as seen
from model_operator.core.analysis import (
    AnalysisState,
    Subject,
    assess,
    compile_plan,
    due,
    state_from_json,
    state_to_json,
)
from model_operator.core.decision import Transition
from model_operator.core.mark import Mark
from model_operator.core.rollout import decide
from model_operator.core.view import trial
from tests.builders import NOW
from tests.invariants import Ledger, Moment, check

TICK_S = 0.25
READY_AFTER_S = 1.0
ROUTE_DELAY_S = 0.25
DRAIN_S = 2.0


@dataclass(slots=True)
class Model:
    """How a revision behaves in this world.

    Attributes:
        error_rate: Share of its answers that are errors.
        latency_s: What the latency query answers.
        failure: Its pods never become ready, for this reason.
    """

    error_rate: float = 0.0
    latency_s: float = 0.05
    failure: seen.Failure | None = None


@dataclass(slots=True)
class Deployment:
    """Pods of a revision: each becomes ready a while after it was asked for.

    Attributes:
        asked: When each pod was asked for.
        requests: Requests by pod, as its own counter has them.
        errors: Of these, by pod.
    """

    asked: list[float] = field(default_factory=list)
    crash_looping: bool = False
    unready: bool = False
    requests: dict[int, float] = field(default_factory=dict)
    errors: dict[int, float] = field(default_factory=dict)
    last_request: float = 0.0

    def scale(self, count: int, now: float) -> None:
        """Ask for more pods, or take the newest away, with their counters."""
        del self.asked[count:]
        self.asked.extend([now] * (count - len(self.asked)))
        for counters in (self.requests, self.errors):
            for pod in [pod for pod in counters if pod >= count]:
                del counters[pod]

    def serve(self, pods: int, requests: float, error_rate: float) -> None:
        """Share requests out among the ready pods."""
        for pod in range(pods):
            self.requests[pod] = self.requests.get(pod, 0.0) + requests / pods
            self.errors[pod] = self.errors.get(pod, 0.0) + requests / pods * error_rate


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user or an operator could have seen at one moment."""

    time: float
    weights: dict[str, int]
    state: str
    reason: str


class World:
    """One ModelDeployment and all that surrounds it.

    Attributes:
        rate: Users' requests a second.
        metrics: Answers a query instead of the world's own counters, when set.
        room: Most pods of a revision for which the cluster has room; no limit without an entry.
        refusal: Why the gateway does not accept the route; empty when it does.
        history: One entry for each change of weights or state.
    """

    def __init__(self, spec: ModelDeploymentSpec, models: dict[str, Model]) -> None:
        self.spec = spec
        self.models = models
        self.target = next(iter(models))
        self.now = NOW
        self.rate = 100.0
        self.metrics: Callable[[Query], Answer | None] | None = None
        self.status = ModelDeploymentStatus()
        self.tests = AnalysisState()
        self.tests_of: tuple[str, str] | None = None
        self.judged: seen.Judgement | None = None
        self.deployments: dict[str, Deployment] = {}
        self.weights: dict[str, int] | None = None
        self.accepted_at = 0.0
        self.gateway_up = True
        self.refusal = ""
        self.room: dict[str, int] = {}
        self.mark: Mark | None = None
        self.request: seen.Request | None = None
        self.disable_rollback = False
        self.operator_up = True
        self.ledger = Ledger()
        self.history: list[Seen] = []
        self.transitions: list[tuple[float, Transition]] = []
        self.writes = 0

    # ------------------------------------------------------------------------ what tests say

    def run(self, seconds: float) -> World:
        """Let time pass."""
        for _ in range(round(seconds / TICK_S)):
            self.tick()
        return self

    def run_until(self, condition: Callable[[World], bool], within_s: float = 600.0) -> float:
        """Let time pass until a condition holds; the seconds that it took."""
        start = self.now
        while not condition(self):
            assert self.now - start < within_s, f"not within {within_s} s; {self.story()}"
            self.tick()
        return self.now - start

    def serving(self) -> World:
        """Up to a first revision that serves."""
        self.run_until(lambda w: w.status.stable is not None and w.weights is not None)
        return self.run(2.0)

    def release(self, revision: str) -> World:
        """The spec names another revision."""
        self.target = revision
        return self

    def ask(self, action: str, revision: str) -> None:
        """A person's request."""
        count = int(self.request.id) + 1 if self.request else 1
        self.request = seen.Request(str(count), action, revision)

    def restart_operator(self) -> None:
        """All that is not in the API server is forgotten."""
        wire = json.loads(json.dumps(to_manifest(self.status)))
        self.status = parse_status({"status": wire})
        self.tests = state_from_json(json.loads(json.dumps(state_to_json(self.tests))))
        self.judged = None

    def state(self) -> str:
        """The rollout's state."""
        return self.status.rollout.state

    def route(self) -> dict[str, int] | None:
        """The live weights; None without a route."""
        return self.weights

    def weight(self, revision: str) -> int:
        """Live weight, percent."""
        return (self.weights or {}).get(revision, 0)

    def weights_seen(self, revision: str) -> list[int]:
        """The revision's weights in the order in which they were live."""
        seen_: list[int] = []
        for entry in self.history:
            percent = entry.weights.get(revision, 0)
            if not seen_ or seen_[-1] != percent:
                seen_.append(percent)
        return seen_

    def entered(self, revision: str, percent: int) -> float:
        """When the revision first had a weight."""
        return next(s.time for s in self.history if s.weights.get(revision, 0) == percent)

    def names(self) -> list[str]:
        """Kinds of the transitions, in order."""
        return [type(transition).__name__ for _, transition in self.transitions]

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = next(c for c in self.status.conditions if c.type == kind)
        return found.status, found.reason

    def story(self) -> str:
        """What happened, for the message of a failed test."""
        lines = [f"{s.time - NOW:8.2f} {s.weights} {s.state} {s.reason}" for s in self.history]
        return "\n".join([*lines, repr(self.status.rollout), *map(repr, self.transitions)])

    # ----------------------------------------------------------------------- how the world goes

    def tick(self) -> None:
        self.now = round(self.now + TICK_S, 3)
        self._users()
        if self.operator_up:
            self._analyse()
            self._decide()
        self._remember()

    def ready(self, revision: str) -> int:
        deployment = self.deployments.get(revision)
        if deployment is None or deployment.unready or self.models[revision].failure:
            return 0
        placed = deployment.asked[: self.room.get(revision)]
        return sum(self.now - asked >= READY_AFTER_S for asked in placed)

    def _users(self) -> None:
        for revision, percent in (self.weights or {}).items():
            deployment = self.deployments.get(revision)
            if deployment is None or percent == 0:
                continue
            requests = self.rate * TICK_S * percent / 100
            if requests:
                deployment.last_request = self.now
            deployment.serve(self.ready(revision), requests, self.models[revision].error_rate)

    def _answer(self, query: Query) -> Answer:
        if self.metrics is not None:
            answer = self.metrics(query)
            if answer is not None:
                return answer
        deployment = self.deployments.get(query.revision)
        if deployment is None or self.ready(query.revision) == 0:
            return Samples()
        if query.text.startswith("latency"):
            return Samples((Series((), self.models[query.revision].latency_s),))
        counters = deployment.errors if query.text.startswith("bad") else deployment.requests
        return Samples(
            tuple(
                Series((("pod", f"{query.revision}-{pod}"),), float(int(count)))
                for pod, count in counters.items()
            )
        )

    def _analyse(self) -> None:
        present = trial(self.spec, self.status)
        if present is None:
            return
        if self.tests_of != (present.revision, present.rollout):
            self.tests, self.tests_of = AnalysisState(), (present.revision, present.rollout)
        subject = Subject("vision", "digits", present.revision, present.stable)
        plan = compile_plan(self.spec.rollout.analysis, subject)
        queries = due(plan, self.tests, self.now)
        if not queries:
            return
        answers = {query: self._answer(query) for query in queries}
        self.tests, verdict = assess(
            plan, self.tests, answers, step=present.weight_id, now=self.now
        )
        self.judged = seen.Judgement(present, verdict)

    def _observe(self) -> seen.Observed:
        workloads = {
            revision: seen.Workload(
                replicas=len(deployment.asked),
                ready=self.ready(revision),
                failure=self._failure(revision),
                crash_looping=deployment.crash_looping,
            )
            for revision, deployment in self.deployments.items()
        }
        route = None
        if self.weights is not None:
            drained = frozenset(
                revision
                for revision, deployment in self.deployments.items()
                if self.weight(revision) == 0 and self.now - deployment.last_request >= DRAIN_S
            )
            in_time = self.now - self.accepted_at >= ROUTE_DELAY_S
            accepted = self.gateway_up and not self.refusal and in_time
            route = seen.Route(
                weights=dict(self.weights),
                accepted=accepted,
                drained=drained,
                rolled_back=self.mark,
                message=self.refusal or "the gateway has not answered yet",
                refused=bool(self.refusal),
            )
        return seen.Observed(
            name="digits",
            generation=1,
            target=seen.Target(self.target, f"sha256:{self.target}"),
            workloads=workloads,
            route=route,
            request=self.request,
            rollback_enabled=not self.disable_rollback,
        )

    def _failure(self, revision: str) -> seen.Failure | None:
        if len(self.deployments[revision].asked) > self.room.get(revision, 1_000):
            return seen.Failure(seen.NO_ROOM, "0/3 nodes are available", definite=False)
        return self.models[revision].failure

    def _decide(self) -> None:
        for _ in range(10):
            observed = self._observe()
            decision = decide(self.spec, self.status, observed, self.judged, self.now)
            if not self.disable_rollback:
                check(
                    Moment(self.spec, self.status, observed, self.judged, self.now, decision),
                    self.ledger,
                )
            self.writes += decision.status != self.status
            self.status = decision.status
            self.transitions += [(self.now, one) for one in decision.transitions]
            self._apply(decision.plan.replicas, dict(decision.plan.weights))
            self.mark = decision.plan.rolled_back
            if not decision.transitions:
                return
        raise AssertionError(f"the decisions do not come to rest\n{self.story()}")

    def _apply(self, replicas: object, weights: dict[str, int]) -> None:
        assert isinstance(replicas, dict)
        for revision, count in replicas.items():
            self.deployments.setdefault(revision, Deployment()).scale(count, self.now)
        for revision in set(self.deployments) - set(replicas):
            assert self.weight(revision) == 0, "pods taken away from under their traffic"
            del self.deployments[revision]
        if weights and weights != self.weights:
            self.weights, self.accepted_at = weights, self.now

    def _remember(self) -> None:
        rollout = self.status.rollout
        entry = Seen(self.now, dict(self.weights or {}), rollout.state, rollout.reason)
        if not self.history or replace(entry, time=self.history[-1].time) != self.history[-1]:
            self.history.append(entry)


def unavailable(message: str = "503 Service Unavailable") -> Answer:
    """What a metrics source that fails answers."""
    return Failure(FailureKind.UNAVAILABLE, message)
