"""What pods say of themselves, as counts and one worst failure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_operator.api.times import format_time
from model_operator.core.observed import Failure
from model_operator.engine.workload import workload
from tests.builders import NOW

Manifest = dict[str, Any]


def at(offset_s: float) -> str:
    return format_time(NOW + offset_s)


def asks_for(replicas: int) -> Manifest:
    return {"spec": {"replicas": replicas}}


def pod(
    *,
    ready: bool = False,
    ready_changed: float = -100.0,
    deleting: bool = False,
    restarts: int = 0,
    state: Manifest | None = None,
    last: Manifest | None = None,
    scheduled: Manifest | None = None,
) -> Manifest:
    metadata: Manifest = {"name": "a", "namespace": "vision"}
    if deleting:
        metadata["deletionTimestamp"] = at(0)
    ready_condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": at(ready_changed),
    }
    container = {
        "name": "model-server",
        "restartCount": restarts,
        "state": state or {"running": {"startedAt": at(-50)}},
        "lastState": last or {},
    }
    conditions = [ready_condition, *([scheduled] if scheduled else [])]
    status = {"conditions": conditions, "containerStatuses": [container]}
    return {"kind": "Pod", "metadata": metadata, "status": status}


def ended(code: int, message: str = "", reason: str = "Error", finished: float = -5.0) -> Manifest:
    return {
        "terminated": {
            "exitCode": code,
            "message": message,
            "reason": reason,
            "startedAt": at(finished - 10),
            "finishedAt": at(finished),
        }
    }


def waiting(reason: str, message: str = "") -> Manifest:
    return {"waiting": {"reason": reason, "message": message}}


def report(reason: str, message: str) -> str:
    return json.dumps({"reason": reason, "message": message})


def test_ready_pods_are_counted_and_those_that_end_are_not() -> None:
    found = workload(asks_for(3), [pod(ready=True), pod(), pod(ready=True, deleting=True)], NOW)
    assert (found.replicas, found.ready) == (3, 1)


@pytest.mark.parametrize(("code", "definite"), [(3, True), (2, True), (4, False)])
def test_the_servers_own_words_say_why_and_whether_waiting_can_help(
    *, code: int, definite: bool
) -> None:
    message = report("DigestMismatch", "it is sha256:12")
    found = workload(
        asks_for(1), [pod(last=ended(code, message), state=waiting("CrashLoopBackOff"))], NOW
    )
    assert found.failure == Failure("DigestMismatch", "it is sha256:12", definite=definite)


def test_a_termination_message_that_is_no_report_is_passed_on_as_it_is() -> None:
    found = workload(asks_for(1), [pod(state=ended(3, "Segmentation fault"))], NOW)
    assert found.failure is not None
    assert found.failure.reason == "ContainerFailed"
    assert "Segmentation fault" in found.failure.message


def test_any_other_end_is_a_failure_that_may_pass() -> None:
    found = workload(asks_for(1), [pod(state=ended(1))], NOW)
    assert found.failure == Failure("ContainerFailed", "exit code 1", definite=False)


def test_out_of_memory_while_loading_is_definite() -> None:
    # readiness never changed since before the run that ended
    killed = ended(137, reason="OOMKilled")
    found = workload(asks_for(1), [pod(ready_changed=-100, last=killed)], NOW)
    assert found.failure is not None
    assert (found.failure.reason, found.failure.definite) == ("OutOfMemory", True)


def test_out_of_memory_while_serving_may_pass() -> None:
    # it was ready, and became unready when it was killed
    killed = ended(137, reason="OOMKilled")
    found = workload(asks_for(1), [pod(ready_changed=-5, last=killed)], NOW)
    assert found.failure is not None
    assert (found.failure.reason, found.failure.definite) == ("OutOfMemory", False)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_may_come(reason: str) -> None:
    found = workload(asks_for(1), [pod(state=waiting(reason, "not found"))], NOW)
    assert found.failure == Failure(reason, "not found", definite=False)


def test_a_pod_without_a_node_says_so() -> None:
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    found = workload(asks_for(1), [pod(scheduled=unschedulable)], NOW)
    assert found.failure == Failure(
        "InsufficientCapacity", "0/3 nodes are available", definite=False
    )


def test_a_quota_that_leaves_no_room_is_told_in_its_own_words() -> None:
    """No pod exists that could say it: the Deployment does."""
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
    deployment = asks_for(1) | {"status": {"conditions": [condition]}}
    found = workload(deployment, [], NOW)
    assert found.failure == Failure("InsufficientCapacity", "exceeded quota: small", definite=False)


def test_a_failure_of_the_past_does_not_count_once_the_pod_is_ready() -> None:
    found = workload(asks_for(1), [pod(ready=True, last=ended(3, report("X", "y")))], NOW)
    assert found.failure is None


def test_of_several_failures_the_definite_one_counts() -> None:
    passing = pod(state=waiting("ErrImagePull"))
    definite = pod(state=ended(3, report("UnsupportedModel", "opset 99")))
    found = workload(asks_for(2), [passing, definite], NOW)
    assert found.failure == Failure("UnsupportedModel", "opset 99", definite=True)


def test_the_kubelets_word_is_enough_for_a_crash_loop() -> None:
    assert workload(asks_for(1), [pod(state=waiting("CrashLoopBackOff"))], NOW).crash_looping


def test_three_restarts_are_a_crash_loop_even_between_two_of_them() -> None:
    assert not workload(asks_for(1), [pod(restarts=2, last=ended(1))], NOW).crash_looping
    assert workload(asks_for(1), [pod(ready=True, restarts=3, last=ended(1))], NOW).crash_looping


def test_restarts_of_long_ago_are_no_crash_loop() -> None:
    old = pod(ready=True, restarts=7, last=ended(1, finished=-3600))
    assert not workload(asks_for(1), [old], NOW).crash_looping
