"""The candidate's way through the steps, from its first pod to its promotion."""

from __future__ import annotations

from collections.abc import Sequence

from model_operator.api.times import format_time
from model_operator.api.types import (
    CandidateStatus,
    FormerStatus,
    ModelDeploymentSpec,
    RolloutStatus,
    StableStatus,
    Step,
    replace,
)
from model_operator.core.allocation import foreign_weight
from model_operator.core.conditions import NOT_CONFIRMED, SUSPENDED
from model_operator.core.decision import (
    HoldBegan,
    HoldEnded,
    PauseEntered,
    Promoted,
    StepEntered,
)
from model_operator.core.observed import NO_ROOM
from model_operator.core.preflight import unread
from model_operator.core.requests import is_paused, waits_for_a_person
from model_operator.core.rollback import keep_serving, only_one_that_serves, overdue
from model_operator.core.steps import (
    PREFLIGHT,
    duration_s,
    elapsed_s,
    end_wait,
    freeze,
    insufficient_s,
    level,
    path,
    percent_at,
    run_clock,
    stop_clock,
)
from model_operator.core.verdict import Outcome
from model_operator.core.view import ALL, Change, View

LEAVING = "waiting until the revision before has left the route"
HOLD_AFTER_LOOKS = 5
"""Looks in a row without any new evidence before the rollout is held: between two scrapes, and
with few requests, a single look sees nothing new though nothing is wrong."""


def progress(view: View) -> Change | None:
    """What the candidate does next; None without one."""
    candidate = view.status.candidate
    if candidate is None or view.stable is None:
        return None
    if candidate.warm:
        return _go_back(view, candidate)
    if candidate.step == PREFLIGHT:
        # what was there before this candidate has left the traffic only when the gateway says so
        return (
            _unconfirmed(view, candidate) or _unread(view, candidate) or _advance(view, candidate)
        )
    if _is_edited(view.spec.rollout.steps, candidate):
        return _realign(view, candidate)
    unconfirmed = _unconfirmed(view, candidate)
    if unconfirmed is not None:
        return unconfirmed
    candidate = _evidence_clock(view, candidate)
    return (
        _held(view, candidate)
        or _weakened(view, candidate)
        or _running(view, candidate)
        or _advance(view, candidate)
    )


def _go_back(view: View, candidate: CandidateStatus) -> Change:
    """To a revision that was stable before: no steps, as much weight as its ready pods carry."""
    unconfirmed = _unconfirmed(view, candidate)
    if unconfirmed is not None:
        return unconfirmed
    need = view.needed(ALL)
    ready = view.observed.ready(candidate.revision)
    percent = min(ALL, ready * ALL // need)
    if foreign_weight(view.observed, {candidate.revision, view.stable or ""}):
        return _waiting(view, candidate, "Queued", LEAVING)
    if percent == ALL:
        return _promote(view, candidate)
    falls = 0 < percent < candidate.percent and view.observed.ready(view.stable) > 0
    if percent <= candidate.percent and not falls:
        # no deadline: it would give the traffic back to what the user wants to leave
        waiting = freeze(candidate, view.now)
        return view.with_candidate(waiting, _lacks_pods(view, candidate, need))
    entered = replace(candidate, percent=percent, waiting_since_time=view.time)
    message = f"{candidate.revision} goes to {percent} %: {ready} of {need} pods are ready"
    raising = view.state("Progressing", "Raising", message)
    status = replace(view.status, candidate=entered, former=None, rollout=raising)
    return Change(status, (StepEntered(candidate.revision, candidate.step, percent),))


def _is_edited(steps: Sequence[Step], candidate: CandidateStatus) -> bool:
    """Whether the steps up to the present one are other ones than those that it took."""
    if percent_at(steps, candidate.step) != candidate.percent:
        return True
    return candidate.path is not None and candidate.path != path(steps, candidate.step)


def _realign(view: View, candidate: CandidateStatus) -> Change:
    """The steps were edited: to the last one whose weight is no more than the present one.

    It is held for its whole time and needs a verdict of its own. When the present weight is below
    all that are planned now, the rollout begins again.
    """
    steps = view.spec.rollout.steps
    index = max(
        (i for i in range(len(steps)) if percent_at(steps, i) <= candidate.percent),
        default=PREFLIGHT,
    )
    index = level(steps, index)
    percent = percent_at(steps, index)
    if percent < candidate.percent and only_one_that_serves(view, candidate, view.stable or ""):
        message = f"no pod of {view.stable} is ready to take the traffic"
        return keep_serving(view, candidate, message)
    entered = _entered(view, candidate, index, percent)
    message = f"the steps were changed: {candidate.revision} is at {percent} % now"
    return view.with_candidate(
        entered,
        view.state("Progressing", "StepsChanged", message),
        StepEntered(candidate.revision, index, percent),
    )


def _entered(view: View, candidate: CandidateStatus, step: int, percent: int) -> CandidateStatus:
    """The candidate at a step whose clock has not begun."""
    return replace(
        candidate,
        insufficient_since_time=None,
        step=step,
        path=path(view.spec.rollout.steps, step),
        percent=percent,
        step_start_time=None,
        step_elapsed_seconds=0.0,
        step_clock_time=None,
        pause_released=False,
        waiting_since_time=view.time,
        next_action_time=None,
    )


def _unconfirmed(view: View, candidate: CandidateStatus) -> Change | None:
    """The gateway does not (yet, or any more) do what the plan says: the clock stands still."""
    route = view.observed.route
    if route is not None and route.accepted:
        if route.weights.get(candidate.revision, 0) == candidate.percent:
            return None
        message = f"waiting for the route to give {candidate.percent} % to {candidate.revision}"
    else:
        detail = f": {route.message}" if route and route.message else ""
        message = f"waiting for the gateway to accept the route{detail}"
    return _waiting(view, candidate, NOT_CONFIRMED, message)


def _unread(view: View, candidate: CandidateStatus) -> Change | None:
    message = unread(view, candidate)
    return _waiting(view, candidate, "Preflight", message) if message is not None else None


def _evidence_clock(view: View, candidate: CandidateStatus) -> CandidateStatus:
    """The candidate with the time since when evidence is missing; a source's failure resets it."""
    verdict = view.verdict
    if verdict is None or candidate.percent == 0:
        return candidate
    if waits_for_a_person(view.spec, candidate):
        return replace(candidate, insufficient_since_time=None)
    missing = verdict.outcome is Outcome.INSUFFICIENT and not verdict.collecting
    if not missing:
        return replace(candidate, insufficient_since_time=None)
    since = candidate.insufficient_since_time
    return candidate if since is not None else replace(candidate, insufficient_since_time=view.time)


def patience_s(spec: ModelDeploymentSpec) -> float:
    """How long evidence may be missing before the rollout is held, seconds."""
    return HOLD_AFTER_LOOKS * spec.rollout.analysis.interval.seconds


def _held(view: View, candidate: CandidateStatus) -> Change | None:
    verdict = view.verdict
    if verdict is None or candidate.percent == 0 or waits_for_a_person(view.spec, candidate):
        return None
    missing_s = insufficient_s(candidate, view.now)
    missing = missing_s is not None and missing_s >= patience_s(view.spec)
    if verdict.outcome is not Outcome.ERROR and not missing:
        return None
    held = freeze(candidate, view.now)
    rollout = view.state("Held", verdict.reason, verdict.message)
    before = view.status.rollout
    if (before.state, before.reason) == ("Held", verdict.reason):
        return view.with_candidate(held, rollout)
    began = HoldBegan(candidate.revision, verdict.reason, verdict.message)
    return view.with_candidate(held, rollout, began)


def _weakened(view: View, candidate: CandidateStatus) -> Change | None:
    """Pods that its weight needs are gone: the weight stays, and its time does not count."""
    if candidate.percent == 0 or is_paused(view.spec, candidate):
        return None
    if view.status.rollout.state == "Held":
        return None  # only a pass ends a hold
    need = view.needed(candidate.percent)
    if view.observed.ready(candidate.revision) >= need:
        return None
    return _no_capacity(view, candidate, need)


def _running(view: View, candidate: CandidateStatus) -> Change | None:
    """The step goes on: its time is not over, or there is no passing verdict yet."""
    step = view.spec.rollout.steps[candidate.step]
    verdict = view.verdict
    passed = candidate.percent == 0 or (verdict is not None and verdict.outcome is Outcome.PASS)
    duration = duration_s(step)
    over = candidate.pause_released or (
        duration is not None and elapsed_s(candidate, view.now) >= duration
    )
    if passed and over:
        return None
    if view.status.rollout.state == "Held" and not passed:
        # What began a hold may be gone, and nothing may be known yet. A single request does not end
        # it either, or it would come and go with each of them where they are few.
        held = view.status.rollout
        if held.reason == SUSPENDED and verdict is not None:
            held = view.state("Held", verdict.reason, verdict.message)
        return view.with_candidate(stop_clock(candidate, view.now), held)
    resumed = view.status.rollout.state == "Held"
    transitions = (HoldEnded(candidate.revision),) if resumed else ()
    candidate = run_clock(end_wait(candidate, view.now), view.now)
    if candidate.step_start_time is None:
        candidate = replace(candidate, step_start_time=view.time)
    if over:
        reason = verdict.reason if verdict is not None else "Analysing"
        message = verdict.message if verdict is not None else "waiting for the first verdict"
        return view.with_candidate(
            candidate, view.state("Progressing", reason, message), *transitions
        )
    if step.pause is not None:
        message = "waiting to be promoted" if duration is None else f"paused for {duration:g} s"
        return view.with_candidate(candidate, view.state("Paused", "Paused", message), *transitions)
    message = f"{candidate.revision} at {candidate.percent} % for {duration:g} s"
    return view.with_candidate(
        candidate, view.state("Progressing", "Analysing", message), *transitions
    )


def _advance(view: View, candidate: CandidateStatus) -> Change:
    """To the next step, as soon as there is capacity for it."""
    steps, index = view.spec.rollout.steps, candidate.step + 1
    percent = percent_at(steps, index)
    need = view.needed(max(candidate.percent, percent))
    if view.observed.ready(candidate.revision) < need:
        return _no_capacity(view, candidate, need)
    if percent > candidate.percent and foreign_weight(
        view.observed, {candidate.revision, view.stable or ""}
    ):
        return _waiting(view, candidate, "Queued", LEAVING)
    if index >= len(steps):
        return _promote(view, candidate)
    entered = _entered(view, candidate, index, max(percent, candidate.percent))
    # the first weight of another revision ends the bake of the one before
    former = view.status.former if entered.percent == 0 else None
    if steps[index].pause is not None:
        paused = view.state("Paused", "Paused", f"{candidate.revision} waits at step {index}")
        status = replace(view.status, candidate=entered, rollout=paused, former=former)
        return Change(status, (PauseEntered(candidate.revision, index),))
    message = f"{candidate.revision} goes to {entered.percent} %"
    raising = view.state("Progressing", "Raising", message)
    status = replace(view.status, candidate=entered, rollout=raising, former=former)
    return Change(status, (StepEntered(candidate.revision, index, entered.percent),))


def _no_capacity(view: View, candidate: CandidateStatus, need: int) -> Change:
    lacks = _lacks_pods(view, candidate, need)
    return _waiting(view, candidate, lacks.reason, lacks.message)


def _lacks_pods(view: View, candidate: CandidateStatus, need: int) -> RolloutStatus:
    """The rollout's state while ready pods are missing."""
    workload = view.observed.workloads.get(candidate.revision)
    ready = workload.ready if workload else 0
    message = f"{ready} of {need} pods of {candidate.revision} are ready"
    if workload is not None and workload.failure is not None:
        message += f": {workload.failure.message}"
    reason = "Preflight" if candidate.step == PREFLIGHT else "WaitingForCapacity"
    if workload is not None and workload.failure and workload.failure.reason == NO_ROOM:
        reason = NO_ROOM
    return view.state("Progressing", reason, message)


def _waiting(view: View, candidate: CandidateStatus, reason: str, message: str) -> Change:
    """The step's clock stands still, and the progress deadline's runs."""
    waiting = stop_clock(candidate, view.now)
    if waiting.waiting_since_time is None:
        waiting = replace(waiting, waiting_since_time=view.time)
    return overdue(view, waiting, message) or view.with_candidate(
        waiting, view.state("Progressing", reason, message)
    )


def _promote(view: View, candidate: CandidateStatus) -> Change:
    """A change of role alone: no pod is touched."""
    before = view.status.stable
    bake = view.spec.rollout.bake
    former = None
    if before is not None:
        # the user has just left it, so it is nothing to come back to by itself
        # and without pods there is nothing to be kept warm
        at_once = candidate.warm or view.floor == 0
        bake_s = 0.0 if at_once else bake.duration.seconds
        former = FormerStatus(
            revision=before.revision,
            digest=before.digest,
            rollout_start_time=candidate.start_time,
            floor_replicas=view.floor,
            bake_end_time=format_time(view.now + bake_s),
        )
    message = f"{candidate.revision} is stable; {former.revision if former else ''} stays warm"
    status = replace(
        view.status,
        stable=StableStatus(
            revision=candidate.revision, digest=candidate.digest, since_time=view.time
        ),
        candidate=None,
        former=former,
        rollout=view.state("Baking", "Promoted", message),
    )
    promoted = Promoted(candidate.revision, before.revision if before else None)
    return Change(status, (promoted,))
