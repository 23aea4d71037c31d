"""The decision: from what is seen to what must be, without a clock and without I/O.

`decide` makes at most one transition; the caller asks again at once when something changed.
All memory is in the status, so that an operator which is restarted anywhere goes on from there.
"""

from __future__ import annotations

from model_operator.api.times import format_time, parse_time
from model_operator.api.types import (
    CandidateStatus,
    FormerStatus,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    StableStatus,
    replace,
)
from model_operator.core.allocation import foreign_weight, make_plan
from model_operator.core.conditions import complete
from model_operator.core.decision import (
    BakeEnded,
    Decision,
    FirstFailed,
    HoldBegan,
    HoldEnded,
    PauseEntered,
    Plan,
    Promoted,
    Started,
    StepEntered,
    Superseded,
    Transition,
)
from model_operator.core.observed import Judgement, Observed
from model_operator.core.requests import answer_request, is_paused
from model_operator.core.rollback import (
    is_rolled_back,
    only_one_that_serves,
    overdue,
    rollback,
)
from model_operator.core.steps import (
    PREFLIGHT,
    duration_s,
    elapsed_s,
    percent_at,
    run_clock,
    stop_clock,
)
from model_operator.core.verdict import Outcome, Verdict
from model_operator.core.view import Change, View

HOLD_AFTER_LOOKS = 5
"""Looks in a row without any new evidence before the rollout is held: between two scrapes, and
with few requests, a single look sees nothing new though nothing is wrong."""


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
        or _first(view)
        or _superseded(view)
        or _bake_end(view)
        or _start(view)
        or _progress(view)
        or _at_rest(view)
    )


def _suspended(view: View) -> Change:
    candidate = view.status.candidate
    if candidate is not None:
        candidate = replace(stop_clock(candidate, view.now), waiting_since_time=None)
    message = "suspended; nothing changes until spec.suspend is false"
    rollout = view.state(view.status.rollout.state, "Suspended", message)
    return Change(replace(view.status, candidate=candidate, rollout=rollout))


# --------------------------------------------------------------------------------- first create


def _first(view: View) -> Change | None:
    """The first revision of all: loaded and warmed up before it serves, but no canary."""
    if view.status.stable is not None:
        return None
    target, candidate = view.observed.target, view.status.candidate
    if candidate is None or candidate.revision != target.revision:
        return _started(
            view, Superseded(candidate.revision, target.revision) if candidate else None
        )
    workload = view.observed.workloads.get(target.revision)
    if workload is not None and workload.ready > 0:
        status = replace(
            view.status,
            stable=StableStatus(revision=target.revision, digest=target.digest),
            candidate=None,
            rollout=view.state("Idle", "Promoted", f"{target.revision} is stable"),
        )
        return Change(status, (Promoted(target.revision, None),))
    failure = workload.failure if workload else None
    if failure is None or not failure.definite:
        message = f"waiting for a ready pod of {target.revision}"
        message += f": {failure.message}" if failure else ""
        return view.with_candidate(candidate, view.state("Progressing", "Preflight", message))
    rollout = view.state("Failed", failure.reason, failure.message)
    if view.status.rollout.state == "Failed":
        return view.with_candidate(candidate, rollout)
    failed = FirstFailed(target.revision, failure.reason, failure.message)
    return view.with_candidate(candidate, rollout, failed)


# ------------------------------------------------------------------------------ which candidate


def _superseded(view: View) -> Change | None:
    candidate, target = view.status.candidate, view.observed.target
    if candidate is None or candidate.revision == target.revision or view.stable is None:
        return None
    if only_one_that_serves(view, candidate, view.stable):
        message = f"{target.revision} waits: no pod of {view.stable} is ready to take the traffic"
        return view.with_candidate(candidate, view.state("Held", "NoHealthyTarget", message))
    gone = Superseded(candidate.revision, target.revision)
    rollout = view.state("Idle", "Superseded", f"{candidate.revision} gave way")
    return Change(replace(view.status, candidate=None, rollout=rollout), (gone,))


def _start(view: View) -> Change | None:
    target = view.observed.target
    if view.status.candidate is not None or target.revision == view.stable:
        return None
    if is_rolled_back(view.status, target.revision):
        return None
    stable = view.status.stable
    if foreign_weight(view.observed, {stable.revision} if stable else set()):
        message = f"{target.revision} waits until the one before has left the route"
        return Change(replace(view.status, rollout=view.state("Progressing", "Queued", message)))
    return _started(view, None)


def _started(view: View, before: Transition | None) -> Change:
    target, former = view.observed.target, view.status.former
    if former is not None and former.revision == target.revision:
        former = None
    candidate = CandidateStatus(
        revision=target.revision,
        digest=target.digest,
        step=PREFLIGHT,
        start_time=view.time,
        waiting_since_time=view.time,
        floor_replicas=max(view.floor, view.observed.replicas(view.stable)),
    )
    message = f"{target.revision} is loaded and warmed up without traffic"
    status = replace(
        view.status,
        candidate=candidate,
        former=former,
        rollout=view.state("Progressing", "Preflight", message),
    )
    started = Started(target.revision)
    return Change(status, (before, started) if before else (started,))


# ------------------------------------------------------------------------------------ candidate


def _progress(view: View) -> Change | None:
    candidate = view.status.candidate
    if candidate is None or view.stable is None:
        return None
    if candidate.step == PREFLIGHT:
        return _advance(view, candidate)
    if candidate.step >= len(view.spec.rollout.steps):  # steps were removed under it
        candidate = replace(candidate, step=len(view.spec.rollout.steps) - 1)
    candidate = _evidence_clock(view, candidate)
    return (
        _unconfirmed(view, candidate)
        or _held(view, candidate)
        or _running(view, candidate)
        or _advance(view, candidate)
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
    return _waiting(view, candidate, "RouteNotConfirmed", message)


def _evidence_clock(view: View, candidate: CandidateStatus) -> CandidateStatus:
    """The candidate with the time since when evidence is missing; a source's failure resets it."""
    verdict = view.verdict
    if verdict is None:
        return candidate
    missing = verdict.outcome is Outcome.INSUFFICIENT and not verdict.collecting
    since = (candidate.insufficient_since_time or view.time) if missing else None
    return replace(candidate, insufficient_since_time=since)


def _patience_s(spec: ModelDeploymentSpec) -> float:
    return HOLD_AFTER_LOOKS * spec.rollout.analysis.interval.seconds


def _held(view: View, candidate: CandidateStatus) -> Change | None:
    verdict = view.verdict
    waits_for_a_person = is_paused(view.spec, candidate) and not candidate.pause_released
    if verdict is None or candidate.percent == 0 or waits_for_a_person:
        return None
    since = candidate.insufficient_since_time
    missing = since is not None and view.now - parse_time(since) >= _patience_s(view.spec)
    if verdict.outcome is not Outcome.ERROR and not missing:
        return None
    held = replace(stop_clock(candidate, view.now), waiting_since_time=None)
    rollout = view.state("Held", verdict.reason, verdict.message)
    before = view.status.rollout
    if (before.state, before.reason) == ("Held", verdict.reason):
        return view.with_candidate(held, rollout)
    began = HoldBegan(candidate.revision, verdict.reason, verdict.message)
    return view.with_candidate(held, rollout, began)


def _is_evidence(verdict: Verdict | None) -> bool:
    return verdict is not None and (verdict.outcome is Outcome.PASS or verdict.collecting)


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
    if view.status.rollout.state == "Held" and candidate.percent > 0 and not _is_evidence(verdict):
        # what began a hold may be gone, and nothing may be known yet: only evidence ends it
        return view.with_candidate(stop_clock(candidate, view.now), view.status.rollout)
    resumed = view.status.rollout.state == "Held"
    transitions = (HoldEnded(candidate.revision),) if resumed else ()
    candidate = replace(run_clock(candidate, view.now), waiting_since_time=None)
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
        message = "waiting until the revision before has left the route"
        return _waiting(view, candidate, "Queued", message)
    if index >= len(steps):
        return _promote(view, candidate)
    entered = replace(
        candidate,
        insufficient_since_time=None,
        step=index,
        percent=max(percent, candidate.percent),
        step_start_time=None,
        step_elapsed_seconds=0.0,
        step_clock_time=None,
        pause_released=False,
        waiting_since_time=view.time,
        next_action_time=None,
    )
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
    workload = view.observed.workloads.get(candidate.revision)
    ready = workload.ready if workload else 0
    message = f"{ready} of {need} pods of {candidate.revision} are ready"
    if workload is not None and workload.failure is not None:
        message += f": {workload.failure.message}"
    reason = "Preflight" if candidate.step == PREFLIGHT else "WaitingForCapacity"
    return _waiting(view, candidate, reason, message)


def _waiting(view: View, candidate: CandidateStatus, reason: str, message: str) -> Change:
    """The step's clock stands still, and the progress deadline's runs."""
    waiting = stop_clock(candidate, view.now)
    if waiting.waiting_since_time is None:
        waiting = replace(waiting, waiting_since_time=view.time, insufficient_since_time=None)
    return overdue(view, waiting, message) or view.with_candidate(
        waiting, view.state("Progressing", reason, message)
    )


def _promote(view: View, candidate: CandidateStatus) -> Change:
    """A change of role alone: no pod is touched."""
    before = view.status.stable
    bake = view.spec.rollout.bake
    former = None
    if before is not None:
        former = FormerStatus(
            revision=before.revision,
            rollout_start_time=candidate.start_time,
            floor_replicas=view.floor,
            bake_end_time=format_time(view.now + bake.duration.seconds),
        )
    message = f"{candidate.revision} is stable; {former.revision if former else ''} stays warm"
    status = replace(
        view.status,
        stable=StableStatus(revision=candidate.revision, digest=candidate.digest),
        candidate=None,
        former=former,
        rollout=view.state("Baking", "Promoted", message),
    )
    promoted = Promoted(candidate.revision, before.revision if before else None)
    return Change(status, (promoted,))


# ----------------------------------------------------------------------------------- bake, rest


def _bake_end(view: View) -> Change | None:
    former = view.status.former
    if former is None or former.bake_end_time is None:
        return None
    if view.now < parse_time(former.bake_end_time):
        return None
    rollout = view.status.rollout
    if view.status.candidate is None:
        rollout = view.state("Idle", "Promoted", f"{view.stable} is stable")
    status = replace(view.status, former=None, rollout=rollout)
    return Change(status, (BakeEnded(former.revision),))


def _at_rest(view: View) -> Change:
    status, target = view.status, view.observed.target
    if status.former is not None and target.revision == view.stable:
        message = f"{view.stable} is stable; {status.former.revision} stays warm"
        return Change(replace(status, rollout=view.state("Baking", "Promoted", message)))
    for entry in status.rolled_back:
        if entry.revision == target.revision != view.stable:
            rollout = view.state("RolledBack", entry.reason, entry.message)
            return Change(replace(status, rollout=rollout))
    reason = status.rollout.reason if status.rollout.state == "Idle" else "Serving"
    rollout = view.state("Idle", reason or "Serving", f"{view.stable} is stable")
    return Change(replace(status, rollout=rollout))


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
            waited = now - parse_time(candidate.waiting_since_time)
            due.append(spec.rollout.progress_deadline.seconds - waited)
        if candidate.insufficient_since_time is not None:
            waited = now - parse_time(candidate.insufficient_since_time)
            limits = (_patience_s(spec), spec.rollout.analysis.on_insufficient.hold.seconds)
            due += [limit - waited for limit in limits]
    if former is not None and former.bake_end_time is not None:
        due.append(parse_time(former.bake_end_time) - now)
    return min((seconds for seconds in due if seconds > 0), default=None)
