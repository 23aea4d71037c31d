"""What people ask for by annotation: each request is done once, or refused and recorded."""

from __future__ import annotations

from model_operator.api.types import (
    CandidateStatus,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RequestStatus,
    replace,
)
from model_operator.core.decision import RequestAnswered
from model_operator.core.rollback import is_rolled_back
from model_operator.core.steps import PREFLIGHT, duration_s
from model_operator.core.view import Change, View


def answer_request(view: View) -> Change | None:
    """Carry out a new request, or refuse it with a reason."""
    request, last = view.observed.request, view.status.last_request
    if request is None or (last is not None and last.id == request.id):
        return None
    status, result = _carry_out(view, request.action, request.revision)
    answered = RequestStatus(
        id=request.id,
        action=request.action,
        revision=request.revision,
        result=result,
        time=view.time,
    )
    transition = RequestAnswered(request.action, request.revision, result)
    return Change(replace(status, last_request=answered), (transition,))


def _carry_out(view: View, action: str, revision: str) -> tuple[ModelDeploymentStatus, str]:
    match action:
        case "retry":
            return _retry(view.status, revision)
        case "promote":
            return _end_pause(view, revision)
        case "abort":  # one that can be done was done by the rollback rule
            return view.status, f"refused: {revision} is no candidate with a stable revision"
        case _:
            return view.status, "refused: the action must be promote, abort or retry"


def _retry(status: ModelDeploymentStatus, revision: str) -> tuple[ModelDeploymentStatus, str]:
    if not is_rolled_back(status, revision):
        return status, "refused: nothing keeps it from being tried when the spec names it"
    rest = tuple(entry for entry in status.rolled_back if entry.revision != revision)
    return replace(status, rolled_back=rest), "done"


def _end_pause(view: View, revision: str) -> tuple[ModelDeploymentStatus, str]:
    status, candidate = view.status, view.status.candidate
    if candidate is None or candidate.revision != revision:
        return status, "refused: it is not the candidate"
    if not is_paused(view.spec, candidate):
        return status, "refused: it is not paused"
    return replace(status, candidate=replace(candidate, pause_released=True)), "done"


def is_paused(spec: ModelDeploymentSpec, candidate: CandidateStatus) -> bool:
    """Whether the candidate is at a pause."""
    steps = spec.rollout.steps
    return PREFLIGHT < candidate.step < len(steps) and steps[candidate.step].pause is not None


def waits_for_a_person(spec: ModelDeploymentSpec, candidate: CandidateStatus) -> bool:
    """Whether the candidate is at a pause that only a request ends."""
    if candidate.pause_released or not is_paused(spec, candidate):
        return False
    return duration_s(spec.rollout.steps[candidate.step]) is None
