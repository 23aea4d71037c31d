"""When a revision is taken off the traffic, and how. `decide` asks this before anything else."""

from __future__ import annotations

from dataclasses import dataclass

from model_operator.api.times import parse_time
from model_operator.api.types import (
    CandidateStatus,
    FormerStatus,
    ModelDeploymentStatus,
    RequestStatus,
    RolledBackStatus,
    StableStatus,
    replace,
)
from model_operator.core.decision import NoHealthyTarget, RolledBack
from model_operator.core.mark import Mark
from model_operator.core.preflight import SIGNATURE_CHANGED, refusal
from model_operator.core.steps import freeze, insufficient_s
from model_operator.core.verdict import Outcome
from model_operator.core.view import Change, View

ROLLED_BACK_LIMIT = 10
ABORTED = "Aborted"
OVERDUE = "ProgressDeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a revision is rolled back."""

    reason: str
    message: str


def rollback(view: View) -> Change | None:
    """The rollback that is due, if any.

    Nothing that is broken elsewhere delays it: no gate, pause, readiness of other revisions or
    metrics source is asked first. The one exception is a stable revision without a ready pod:
    then the candidate may be the only one that serves, and it keeps its weight.
    """
    if not view.observed.rollback_enabled:
        return None
    return _of_candidate(view) or _of_baking(view)


def _of_candidate(view: View) -> Change | None:
    candidate, stable = view.status.candidate, view.stable
    if candidate is None or stable is None:
        return None
    cause = _cause(view, candidate)
    return take_off(view, candidate, cause) if cause is not None else None


def take_off(view: View, candidate: CandidateStatus, cause: Cause) -> Change | None:
    """Weight 0 for the candidate, unless it is the only one that serves."""
    stable = view.stable
    if stable is None or not view.observed.rollback_enabled:
        return None
    if only_one_that_serves(view, candidate, stable):
        return _no_healthy_target(view, candidate.revision, stable, cause)
    last_request = view.status.last_request
    request = view.observed.request
    # NB: the reason may be the route's memory of one that was answered by a status that is lost
    if request is not None and cause.reason == ABORTED and _aborted(view, candidate) is not None:
        last_request = RequestStatus(
            id=request.id,
            action=request.action,
            revision=request.revision,
            result="done",
            time=view.time,
        )
    status = replace(
        view.status,
        candidate=None,
        last_request=last_request,
        rolled_back=remember(view, candidate.revision, cause),
        rollout=view.state("RolledBack", cause.reason, cause.message),
    )
    gone = RolledBack(candidate.revision, cause.reason, cause.message)
    return Change(
        status, (gone,), mark=_mark(view, candidate.start_time, candidate.revision, cause)
    )


def only_one_that_serves(view: View, candidate: CandidateStatus, stable: str) -> bool:
    """Whether traffic would go from a revision that answers to one that cannot."""
    exposed = candidate.percent > 0 or view.observed.weight(candidate.revision) > 0
    observed = view.observed
    return exposed and observed.ready(stable) == 0 and observed.ready(candidate.revision) > 0


def keep_serving(view: View, candidate: CandidateStatus, message: str) -> Change:
    """The only one that serves stays on its weight until stable can take the traffic."""
    held = freeze(candidate, view.now)
    return view.with_candidate(held, view.state("Held", "NoHealthyTarget", message))


def fails_in_bake(view: View) -> bool:
    """Whether the revision that bakes should go back to the one before."""
    former, stable = view.status.former, view.status.stable
    if former is None or stable is None or not view.observed.rollback_enabled:
        return False
    return _cause_in_bake(view, former, stable.revision) is not None


def _of_baking(view: View) -> Change | None:
    former, stable = view.status.former, view.status.stable
    if former is None or stable is None:
        return None
    cause = _cause_in_bake(view, former, stable.revision)
    if cause is None:
        return None
    if view.observed.ready(former.revision) == 0:
        if view.observed.target.revision != stable.revision:
            return None  # a mended version may be on its way: nothing better is to be had
        return _no_healthy_target(view, stable.revision, former.revision, cause)
    candidate = view.status.candidate
    if candidate is not None and candidate.revision == former.revision:
        candidate = None  # the user was already on the way back to it
    status = replace(
        view.status,
        stable=StableStatus(revision=former.revision, digest=former.digest, since_time=view.time),
        former=None,
        candidate=candidate,
        rolled_back=remember(view, stable.revision, cause),
        rollout=view.state("RolledBack", cause.reason, cause.message),
    )
    gone = RolledBack(stable.revision, cause.reason, cause.message)
    return Change(
        status, (gone,), mark=_mark(view, former.rollout_start_time, stable.revision, cause)
    )


def _cause(view: View, candidate: CandidateStatus) -> Cause | None:
    # NB: what the route remembers comes last: when only the status's write failed, the cause is
    # still there, and says how it is now
    return (
        _broken(view, candidate.revision, weighted=candidate.percent > 0)
        or _incompatible(view, candidate)
        or _judged(view, candidate.revision, candidate.start_time)
        or _aborted(view, candidate)
        or _evidence_missing(view, candidate)
        or _recovered(view, candidate.start_time)
    )


def _cause_in_bake(view: View, former: FormerStatus, stable: str) -> Cause | None:
    return (
        _broken(view, stable, weighted=True)
        or _judged(view, stable, former.rollout_start_time)
        or _recovered(view, former.rollout_start_time)
    )


def _recovered(view: View, rollout: str | None) -> Cause | None:
    route = view.observed.route
    mark = route.rolled_back if route is not None else None
    if mark is None or mark.rollout != rollout:
        return None
    return Cause(mark.reason, mark.message)


def _mark(view: View, rollout: str | None, revision: str, cause: Cause) -> Mark:
    return Mark(rollout or "", revision, cause.reason, cause.message, view.time)


def _broken(view: View, revision: str, *, weighted: bool) -> Cause | None:
    workload = view.observed.workloads.get(revision)
    if workload is not None and workload.failure is not None and workload.failure.definite:
        return Cause(workload.failure.reason, workload.failure.message)
    if not weighted:
        return None
    if workload is not None and workload.replicas == 0:
        return None  # nobody asked for a pod that could be ready
    if workload is None or workload.ready == 0:
        detail = f": {workload.failure.message}" if workload and workload.failure else ""
        return Cause("ReadinessCollapsed", f"no pod of {revision} is ready{detail}")
    if workload.crash_looping:
        detail = f": {workload.failure.message}" if workload.failure else ""
        return Cause("CrashLooping", f"containers of {revision} restart again and again{detail}")
    return None


def _incompatible(view: View, candidate: CandidateStatus) -> Cause | None:
    message = refusal(view, candidate)
    return Cause(SIGNATURE_CHANGED, message) if message is not None else None


def _judged(view: View, revision: str, rollout: str | None) -> Cause | None:
    verdict = view.failed(revision, rollout)
    return Cause(verdict.reason, verdict.message) if verdict is not None else None


def _aborted(view: View, candidate: CandidateStatus) -> Cause | None:
    request, last = view.observed.request, view.status.last_request
    if request is None or request.action != "abort" or request.revision != candidate.revision:
        return None
    if last is not None and last.id == request.id:
        return None
    return Cause(ABORTED, "aborted by a request")


def _evidence_missing(view: View, candidate: CandidateStatus) -> Cause | None:
    policy = view.spec.rollout.analysis.on_insufficient
    missing_s = insufficient_s(candidate, view.now)
    verdict = view.verdict
    if missing_s is None or policy.then != "Rollback" or verdict is None:
        return None
    if verdict.outcome is not Outcome.INSUFFICIENT or verdict.collecting:
        return None  # the status may be old: what is known now decides
    if missing_s < policy.hold.seconds:
        return None
    return Cause("InsufficientData", f"no evidence for {policy.hold.text}")


def overdue(view: View, waiting: CandidateStatus, awaited: str) -> Change | None:
    """The rollback that is due when something was awaited for too long.

    Only a rule that has just found that it still waits may ask: while nobody looked, what was
    awaited may have come.
    """
    if not is_overdue(view, waiting):
        return None
    message = f"no progress for {view.spec.rollout.progress_deadline.text}: {awaited}"
    return take_off(view, waiting, Cause(OVERDUE, message))


def is_overdue(view: View, waiting: CandidateStatus) -> bool:
    """Whether the candidate has waited for longer than the progress deadline."""
    since, deadline_s = waiting.waiting_since_time, view.spec.rollout.progress_deadline.seconds
    return since is not None and view.now - parse_time(since) >= deadline_s


def remember(view: View, revision: str, cause: Cause) -> tuple[RolledBackStatus, ...]:
    """The list of rolled-back revisions with one more, the newest last."""
    others = [entry for entry in view.status.rolled_back if entry.revision != revision]
    entry = RolledBackStatus(
        revision=revision, reason=cause.reason, message=cause.message, time=view.time
    )
    return tuple([*others, entry][-ROLLED_BACK_LIMIT:])


def is_rolled_back(status: ModelDeploymentStatus, revision: str) -> bool:
    """Whether a revision was rolled back and is not to be tried again by itself."""
    return any(entry.revision == revision and not entry.released for entry in status.rolled_back)


def release_others(status: ModelDeploymentStatus, target: str) -> ModelDeploymentStatus:
    """The status in which a rolled-back revision that the spec no longer names may be tried again.

    To name it once more, after another, is a person's decision and no retry by itself.
    """
    entries = tuple(
        entry if entry.revision == target else replace(entry, released=True)
        for entry in status.rolled_back
    )
    return replace(status, rolled_back=entries)


def _no_healthy_target(view: View, revision: str, target: str, cause: Cause) -> Change:
    message = f"{cause.reason}: {cause.message}; but no pod of {target} is ready"
    before, candidate = view.status.rollout, view.status.candidate
    if candidate is not None:
        candidate = freeze(candidate, view.now)
    rollout = view.state("Held", "NoHealthyTarget", message)
    status = replace(view.status, candidate=candidate, rollout=rollout)
    if before.reason == "NoHealthyTarget":
        return Change(status)
    return Change(status, (NoHealthyTarget(revision, message),))
