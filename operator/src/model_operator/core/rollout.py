"""The decision: from what is seen to what must be, without a clock and without I/O.

`decide` makes at most one transition; the caller asks again at once when something changed.
All memory is in the status, so that an operator which is restarted anywhere goes on from there.
"""

from __future__ import annotations

from model_operator.api.times import parse_time
from model_operator.api.types import (
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RolloutState,
    RolloutStatus,
    replace,
)
from model_operator.core.allocation import make_plan
from model_operator.core.conditions import (
    GATEWAY_ANSWERS_S,
    NOT_CONFIRMED,
    STALLED_STATES,
    SUSPENDED,
    complete,
)
from model_operator.core.decision import BakeEnded, Decision, Plan
from model_operator.core.introduction import first, start, superseded
from model_operator.core.observed import Judgement, Observed
from model_operator.core.progress import patience_s, progress
from model_operator.core.requests import answer_request
from model_operator.core.rollback import fails_in_bake, release_others, rollback
from model_operator.core.steps import duration_s, elapsed_s, freeze, insufficient_s
from model_operator.core.view import Change, View


def decide(
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    observed: Observed,
    judgement: Judgement | None,
    now: float,
) -> Decision:
    """What must be true now, and what changed.

    Args:
        spec: What the user asks for.
        status: The last written status, the memory of all decisions before.
        observed: The world.
        judgement: What the analysis makes of the newest samples; None before the first.
        now: Seconds since the epoch.
    """
    status = release_others(status, observed.target.revision)
    view = View(spec, status, observed, judgement, now)
    change = _next(view)
    plan = make_plan(spec, change.status, observed, mark=change.mark)
    return Decision(
        plan=plan,
        status=complete(spec, change.status, observed, plan, now),
        route_first=_falls(plan, change.status, observed),
        transitions=change.transitions,
        next_s=0.0 if change.transitions else _next_s(spec, change.status, now),
    )


def _falls(plan: Plan, status: ModelDeploymentStatus, observed: Observed) -> bool:
    """Whether a revision loses weight that it has now, other than by a promotion."""
    live = observed.route.weights if observed.route else {}
    roles = (status.stable, status.former)
    kept = {role.revision for role in roles if role is not None}
    return any(
        plan.weights.get(revision, 0) < weight
        for revision, weight in live.items()
        if revision not in kept
    )


def _next(view: View) -> Change:
    """The first rule that has something to say."""
    change = rollback(view)
    if change is not None:
        return change
    if view.spec.suspend:
        return _suspended(view)
    return (
        answer_request(view)
        or first(view)
        or superseded(view)
        or _bake_end(view)
        or start(view)
        or progress(view)
        or _at_rest(view)
    )


def _suspended(view: View) -> Change:
    candidate = view.status.candidate
    if candidate is not None:
        # time in which nobody may do anything is neither want of progress nor of evidence
        candidate = replace(freeze(candidate, view.now), insufficient_since_time=None)
    status = replace(view.status, candidate=candidate)
    if view.status.rollout.state in STALLED_STATES:
        return Change(status)  # why it stopped stays to be read
    message = "suspended; nothing changes until spec.suspend is false"
    rollout = view.state(view.status.rollout.state, SUSPENDED, message)
    return Change(replace(status, rollout=rollout))


def _bake_end(view: View) -> Change | None:
    former = view.status.former
    if former is None or former.bake_end_time is None:
        return None
    route = view.observed.route
    if view.now < parse_time(former.bake_end_time) or route is None or not route.accepted:
        return None  # what traffic may still reach is not let go
    if fails_in_bake(view):
        return None  # it is kept until it can take over, or a mended version does
    rollout = view.status.rollout
    if view.status.candidate is None:
        rollout = view.state("Idle", "Promoted", f"{view.stable} is stable")
    status = replace(view.status, former=None, rollout=rollout)
    return Change(status, (BakeEnded(former.revision),))


def _at_rest(view: View) -> Change:
    status, target = view.status, view.observed.target
    if status.former is not None and target.revision == view.stable:
        message = f"{view.stable} is stable; {status.former.revision} stays warm"
        baking = _unanswered(view, "Baking") or view.state("Baking", "Promoted", message)
        return Change(replace(status, rollout=baking))
    for entry in status.rolled_back:
        if entry.revision == target.revision != view.stable and not entry.released:
            rollout = view.state("RolledBack", entry.reason, entry.message)
            return Change(replace(status, rollout=rollout))
    unanswered = _unanswered(view, "Idle")
    if unanswered is not None:
        return Change(replace(status, rollout=unanswered))
    reason = status.rollout.reason if status.rollout.state == "Idle" else ""
    if reason in {"", NOT_CONFIRMED, SUSPENDED}:
        reason = "Serving"
    return Change(replace(status, rollout=view.state("Idle", reason, f"{view.stable} is stable")))


def _unanswered(view: View, state: RolloutState) -> RolloutStatus | None:
    """The state while the gateway has not accepted the route; None when it has."""
    route = view.observed.route
    if route is None or route.accepted:
        return None
    message = f"waiting for the gateway to accept the route: {route.message}"
    return view.state(state, NOT_CONFIRMED, message)


def _next_s(spec: ModelDeploymentSpec, status: ModelDeploymentStatus, now: float) -> float | None:
    """Seconds until time alone changes the decision; what is over by now changes nothing more."""
    due = []
    candidate, former = status.candidate, status.former
    if candidate is not None:
        steps = spec.rollout.steps
        if candidate.step_clock_time is not None and candidate.step < len(steps):
            duration = duration_s(steps[candidate.step])
            if duration is not None:
                due.append(duration - elapsed_s(candidate, now))
        if candidate.waiting_since_time is not None:
            waited_s = now - parse_time(candidate.waiting_since_time)
            due.append(spec.rollout.progress_deadline.seconds - waited_s)
        missing_s = insufficient_s(candidate, now)
        if missing_s is not None and candidate.waiting_since_time is None:
            limits = (patience_s(spec), spec.rollout.analysis.on_insufficient.hold.seconds)
            due += [limit - missing_s for limit in limits]
    if former is not None and former.bake_end_time is not None:
        due.append(parse_time(former.bake_end_time) - now)
    if status.rollout.reason == NOT_CONFIRMED and status.rollout.since_time is not None:
        due.append(GATEWAY_ANSWERS_S - (now - parse_time(status.rollout.since_time)))
    return min((seconds for seconds in due if seconds > 0), default=None)
