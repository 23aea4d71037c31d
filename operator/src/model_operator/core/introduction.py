"""Which revision is the candidate: the first of all, a new one, or none any more."""

from __future__ import annotations

from model_operator.api.types import CandidateStatus, StableStatus, replace
from model_operator.core.allocation import foreign_weight
from model_operator.core.decision import FirstFailed, Promoted, Started, Superseded, Transition
from model_operator.core.observed import NO_ROOM, Failure
from model_operator.core.rollback import (
    OVERDUE,
    is_overdue,
    is_rolled_back,
    keep_serving,
    only_one_that_serves,
)
from model_operator.core.steps import PREFLIGHT
from model_operator.core.view import Change, View


def first(view: View) -> Change | None:
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
            stable=StableStatus(
                revision=target.revision, digest=target.digest, since_time=view.time
            ),
            candidate=None,
            rollout=view.state("Idle", "Promoted", f"{target.revision} is stable"),
        )
        return Change(status, (Promoted(target.revision, None),))
    if candidate.waiting_since_time is None:
        candidate = replace(candidate, waiting_since_time=view.time)
    failure = _failure_of_first(view, candidate, workload.failure if workload else None)
    if failure is None or not failure.definite:
        message = f"waiting for a ready pod of {target.revision}"
        message += f": {failure.message}" if failure else ""
        reason = NO_ROOM if failure is not None and failure.reason == NO_ROOM else "Preflight"
        return view.with_candidate(candidate, view.state("Progressing", reason, message))
    rollout = view.state("Failed", failure.reason, failure.message)
    if view.status.rollout.state == "Failed":
        return view.with_candidate(candidate, rollout)
    failed = FirstFailed(target.revision, failure.reason, failure.message)
    return view.with_candidate(candidate, rollout, failed)


def _failure_of_first(
    view: View, candidate: CandidateStatus, seen: Failure | None
) -> Failure | None:
    """What is wrong with it: what its pods tell of, after the deadline in any case something.

    There is nothing to go back to: it is not taken off, and serves should it get ready after all.
    """
    known = seen is not None and (seen.definite or seen.reason == NO_ROOM)
    # NB: whoever comes after a restart counts anew, but what was said stays so
    late = view.status.rollout.reason == OVERDUE or is_overdue(view, candidate)
    if known or not late:
        return seen
    deadline = view.spec.rollout.progress_deadline.text
    detail = seen.message if seen is not None else "its pods tell of no failure"
    return Failure(OVERDUE, f"no ready pod for {deadline}: {detail}", definite=True)


def superseded(view: View) -> Change | None:
    """A candidate that the spec no longer names gives way."""
    candidate, target = view.status.candidate, view.observed.target
    if candidate is None or candidate.revision == target.revision or view.stable is None:
        return None
    if only_one_that_serves(view, candidate, view.stable):
        message = f"{target.revision} waits: no pod of {view.stable} is ready to take the traffic"
        return keep_serving(view, candidate, message)
    gone = Superseded(candidate.revision, target.revision)
    rollout = view.state("Idle", "Superseded", f"{candidate.revision} gave way")
    return Change(replace(view.status, candidate=None, rollout=rollout), (gone,))


def start(view: View) -> Change | None:
    """The revision that the spec names becomes the candidate."""
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
    warm = former is not None and former.revision == target.revision
    candidate = CandidateStatus(
        revision=target.revision,
        digest=target.digest,
        step=PREFLIGHT,
        start_time=view.time,
        waiting_since_time=view.time,
        floor_replicas=max(view.floor, view.observed.replicas(view.stable)),
        warm=warm,
    )
    message = f"{target.revision} is loaded and warmed up without traffic"
    if warm:
        message = f"{target.revision} is still warm: its weight follows its ready pods"
    status = replace(
        view.status,
        candidate=candidate,
        former=former,
        rollout=view.state("Progressing", "Preflight", message),
    )
    started = Started(target.revision, warm)
    return Change(status, (before, started) if before else (started,))
