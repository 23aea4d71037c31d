"""The status that people and tools read: counts, traffic and kstatus conditions."""

from __future__ import annotations

from typing import Literal, TypeAlias

from model_operator.api.labels import child_labels
from model_operator.api.samples import FailureKind
from model_operator.api.times import format_time, parse_time
from model_operator.api.types import (
    CandidateStatus,
    Condition,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RolloutStatus,
    TrafficStatus,
    replace,
)
from model_operator.core.decision import Plan
from model_operator.core.observed import NO_ROOM, Observed
from model_operator.core.steps import duration_s

GATEWAY_ANSWERS_S = 30.0
"""A gateway that has not answered for this long, seconds, needs someone."""
NOT_CONFIRMED = "RouteNotConfirmed"
SUSPENDED = "Suspended"
STALLED_STATES = frozenset({"RolledBack", "Failed"})
STALLED_REASONS = frozenset({"NoHealthyTarget", NO_ROOM, FailureKind.CONFIGURATION.value})

Found: TypeAlias = tuple[Literal["True", "False"], str, str]
"""A condition's status, reason and message."""


def complete(
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    observed: Observed,
    plan: Plan,
    now: float,
) -> ModelDeploymentStatus:
    """The decided status with everything in it that follows from the decision and the world."""
    status = _counts(status, observed)
    status = replace(
        status,
        observed_generation=observed.generation,
        candidate=_next_action(spec, status),
        traffic=_traffic(status, observed, plan),
    )
    return replace(status, conditions=_conditions(spec, status, observed, now))


def invalid_spec(
    status: ModelDeploymentStatus,
    generation: int,
    message: str,
    now: float,
    *,
    reason: str = "InvalidSpec",
) -> ModelDeploymentStatus:
    """The status when the spec cannot be used: the last good state keeps serving.

    Args:
        status: The last written status.
        generation: Of the spec that is refused.
        message: What to change, with the JSON path.
        now: Seconds since the epoch.
        reason: What kind of thing has to be changed.
    """
    others = [entry for entry in status.conditions if entry.type == "Ready"] or [
        _condition(status, generation, now, "Ready", ("False", reason, message))
    ]
    conditions = (
        *others,
        _condition(status, generation, now, "Reconciling", ("False", reason, "")),
        _condition(status, generation, now, "Stalled", ("True", reason, message)),
    )
    return replace(status, observed_generation=generation, conditions=conditions)


def _counts(status: ModelDeploymentStatus, observed: Observed) -> ModelDeploymentStatus:
    stable, candidate, former = status.stable, status.candidate, status.former
    if stable is not None:
        stable = replace(
            stable,
            replicas=observed.replicas(stable.revision),
            ready_replicas=observed.ready(stable.revision),
        )
    if candidate is not None:
        candidate = replace(
            candidate,
            replicas=observed.replicas(candidate.revision),
            ready_replicas=observed.ready(candidate.revision),
        )
    if former is not None:
        former = replace(
            former,
            replicas=observed.replicas(former.revision),
            ready_replicas=observed.ready(former.revision),
        )
    selector = ""
    if stable is not None:
        labels = child_labels(observed.name, stable.revision)
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return replace(
        status,
        replicas=stable.replicas if stable else 0,
        selector=selector,
        stable=stable,
        candidate=candidate,
        former=former,
    )


def _next_action(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus
) -> CandidateStatus | None:
    """The candidate with the time at which its step is over at the earliest."""
    candidate, steps = status.candidate, spec.rollout.steps
    if candidate is None:
        return None
    running = candidate.step_clock_time
    duration = duration_s(steps[candidate.step]) if 0 <= candidate.step < len(steps) else None
    if running is None or duration is None:
        return replace(candidate, next_action_time=None)
    over = parse_time(running) + duration - candidate.step_elapsed_seconds
    return replace(candidate, next_action_time=format_time(over))


def _traffic(
    status: ModelDeploymentStatus, observed: Observed, plan: Plan
) -> tuple[TrafficStatus, ...]:
    """Desired and confirmed shares; a revision stays listed until its 0 is confirmed."""
    before = {entry.revision: entry.confirmed_percent for entry in status.traffic}
    listed = list(plan.weights)
    leaving = [r for r, confirmed in before.items() if r not in plan.weights and confirmed != 0]
    return tuple(
        TrafficStatus(
            revision=revision,
            desired_percent=plan.weights.get(revision, 0),
            confirmed_percent=_confirmed(revision, observed, before.get(revision)),
        )
        for revision in [*listed, *leaving]
    )


def _confirmed(revision: str, observed: Observed, before: int | None) -> int | None:
    """A rise is confirmed by the gateway; a 0 also needs the revision's own counters to rest."""
    route = observed.route
    if route is None or not route.accepted:
        return before
    live = route.weights.get(revision, 0)
    if live == 0 and revision not in route.drained:
        return before
    return live


def _conditions(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, observed: Observed, now: float
) -> tuple[Condition, ...]:
    conditions = (
        ("Ready", _ready(status, observed)),
        ("Reconciling", _reconciling(status, spec)),
        ("Stalled", _stalled(spec, status, observed, now)),
    )
    return tuple(
        _condition(status, observed.generation, now, kind, found) for kind, found in conditions
    )


def _ready(status: ModelDeploymentStatus, observed: Observed) -> Found:
    """Serving, and nothing else: a healthy rollout does not change it."""
    stable, rollout = status.stable, status.rollout
    if stable is None:
        return "False", rollout.reason or "Preflight", rollout.message
    if stable.ready_replicas == 0 and observed.ready(_weighted(status)) == 0:
        return "False", "NoReadyPods", f"no pod of {stable.revision} is ready"
    if not any(entry.confirmed_percent for entry in status.traffic):
        detail = observed.route.message if observed.route else ""
        return "False", "RouteNotAccepted", detail or "the gateway has not accepted the route yet"
    return "True", "Serving", f"{stable.revision} serves"


def _weighted(status: ModelDeploymentStatus) -> str | None:
    candidate = status.candidate
    return candidate.revision if candidate is not None and candidate.percent > 0 else None


def _reconciling(status: ModelDeploymentStatus, spec: ModelDeploymentSpec) -> Found:
    rollout, stable = status.rollout, status.stable
    if rollout.state in STALLED_STATES:
        return "False", rollout.reason, ""
    under_way = status.candidate is not None or rollout.state == "Progressing"
    if under_way or rollout.reason == NOT_CONFIRMED:
        return "True", rollout.reason or "Progressing", rollout.message
    if stable is not None and stable.ready_replicas < spec.replicas:
        message = f"{stable.ready_replicas} of {spec.replicas} pods are ready"
        return "True", "Scaling", message
    return "False", "Settled", ""


def _stalled(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, observed: Observed, now: float
) -> Found:
    rollout, route = status.rollout, observed.route
    if rollout.state in STALLED_STATES:
        return "True", rollout.reason, rollout.message
    if rollout.reason in STALLED_REASONS:
        return "True", rollout.reason, rollout.message
    if route is not None and not route.accepted and (route.refused or _long_silent(rollout, now)):
        return "True", "RouteNotAccepted", route.message
    workload = observed.workloads.get(status.stable.revision) if status.stable else None
    failure = workload.failure if workload is not None else None
    few = workload is not None and workload.ready < spec.replicas
    if few and failure is not None and failure.reason == NO_ROOM:
        return "True", NO_ROOM, failure.message
    return "False", "Healthy", ""


def _long_silent(rollout: RolloutStatus, now: float) -> bool:
    """Whether a gateway has said nothing for longer than any needs."""
    if rollout.reason != NOT_CONFIRMED or rollout.since_time is None:
        return False
    return now - parse_time(rollout.since_time) >= GATEWAY_ANSWERS_S


def _condition(
    status: ModelDeploymentStatus,
    generation: int,
    now: float,
    kind: str,
    found: Found,
) -> Condition:
    """A condition whose transition time moves only with its status."""
    state, reason, message = found
    before = next((entry for entry in status.conditions if entry.type == kind), None)
    since = before.last_transition_time if before and before.status == state else format_time(now)
    return Condition(
        type=kind,
        status=state,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
