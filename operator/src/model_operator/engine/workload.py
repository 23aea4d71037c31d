"""What the pods of a revision say of themselves, in counts and one worst failure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from model_operator.api.times import parse_time
from model_operator.core.observed import NO_ROOM, Failure, Workload
from model_operator.core.pod_template import CONTAINER
from model_operator.engine.store import is_deleting

Manifest = dict[str, Any]

CRASH_LOOP_RESTARTS = 3
"""Restarts of one container that count as a loop before the kubelet calls it one."""
CRASH_LOOP_MEMORY_S = 600.0
"""A restart that is longer ago no longer counts, seconds."""

_RETRYABLE_EXIT = 4
_SERVER_EXITS = frozenset({2, 3, 4})
_CANNOT_START = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)


class _Report(msgspec.Struct):
    """The server's termination message."""

    reason: str
    message: str


def workload(deployment: Manifest, pods: Iterable[Manifest], now: float) -> Workload:
    """The pods of one revision as the decision sees them.

    Args:
        deployment: The revision's Deployment.
        pods: Its pods; those that are being deleted count for nothing.
        now: Seconds since the epoch.
    """
    alive = [pod for pod in pods if not is_deleting(pod)]
    failures = [failure for pod in alive if (failure := _failure(pod)) is not None]
    failures += _refused(deployment)
    failures.sort(key=lambda failure: not failure.definite)
    return Workload(
        replicas=deployment["spec"].get("replicas", 1),
        ready=sum(is_ready(pod) for pod in alive),
        failure=failures[0] if failures else None,
        crash_looping=any(_crash_looping(pod, now) for pod in alive),
    )


def is_ready(pod: Manifest) -> bool:
    """Whether routers send requests to the pod."""
    return not is_deleting(pod) and _condition(pod, "Ready").get("status") == "True"


def _refused(deployment: Manifest) -> list[Failure]:
    """What keeps pods from being made at all, such as a quota or a policy of the namespace."""
    condition = _condition(deployment, "ReplicaFailure")
    if condition.get("status") != "True":
        return []
    return [Failure(NO_ROOM, condition.get("message", ""), definite=False)]


def _failure(pod: Manifest) -> Failure | None:
    """Why the pod is not ready, as far as anybody said."""
    if is_ready(pod):
        return None
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Failure(NO_ROOM, scheduled.get("message", ""), definite=False)
    status = _container(pod)
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _CANNOT_START:
        return Failure(waiting["reason"], waiting.get("message", ""), definite=False)
    ended = state.get("terminated") or last.get("terminated")
    return _ended(pod, ended) if ended else None


def _ended(pod: Manifest, ended: Manifest) -> Failure | None:
    code = ended.get("exitCode", 0)
    if ended.get("reason") == "OOMKilled":
        loading = _was_loading(pod, ended)
        text = "out of memory while loading the model" if loading else "out of memory"
        return Failure("OutOfMemory", f"{text}; raise its memory limit", definite=loading)
    if code in _SERVER_EXITS:
        try:
            report = msgspec.json.decode(ended.get("message", ""), type=_Report)
        except msgspec.DecodeError:
            report = _Report("ContainerFailed", f"exit code {code}: {ended.get('message', '')}")
        return Failure(report.reason, report.message, definite=code != _RETRYABLE_EXIT)
    if code:
        message = f"exit code {code}: {ended.get('message', '')}".rstrip(": ")
        return Failure("ContainerFailed", message, definite=False)
    return None


def _was_loading(pod: Manifest, ended: Manifest) -> bool:
    """Whether the run that ended never became ready: readiness has not changed since it began."""
    changed, started = _condition(pod, "Ready").get("lastTransitionTime"), ended.get("startedAt")
    if not changed or not started:
        return False
    return parse_time(changed) <= parse_time(started)


def _crash_looping(pod: Manifest, now: float) -> bool:
    status = _container(pod)
    if ((status.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff":
        return True
    ended = (status.get("lastState") or {}).get("terminated") or {}
    if status.get("restartCount", 0) < CRASH_LOOP_RESTARTS or not ended.get("finishedAt"):
        return False
    return now - parse_time(ended["finishedAt"]) < CRASH_LOOP_MEMORY_S


def _condition(manifest: Manifest, kind: str) -> Manifest:
    for condition in manifest.get("status", {}).get("conditions") or ():
        if condition["type"] == kind:
            found: Manifest = condition
            return found
    return {}


def _container(pod: Manifest) -> Manifest:
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status["name"] == CONTAINER:
            found: Manifest = status
            return found
    return {}
