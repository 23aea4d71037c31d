"""The cluster hurts in mid-canary, under load: what users saw is counted, and no model is blamed.

What lasts minutes in the real world is marked `full`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hack.demo.cluster import kubectl
from hack.demo.history import History, Outcome
from tests.e2e import nodes
from tests.e2e.scene import Scene, failed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Stage = Callable[..., Scene]
Property = Callable[[str, object], None]
"""Keeps a figure in the test report."""

RATE = 50.0
REPLICAS = 3
EVERY_REQUEST = 1.0
"""Where there is one way in, and it is shut."""


def three_pods(manifest: dict[str, Any]) -> None:
    manifest["spec"]["replicas"] = REPLICAS


def serving(stage: Stage, *, step_s: int = 6, rate: float = RATE) -> Scene:
    """A first version with three pods under load."""
    s = stage(step_s=step_s)
    digest = s.apply(1, change=three_pods).digest
    s.wait("all pods ready", lambda h: ready_stable(h) == REPLICAS, 120)
    assert s.history.revision_of(digest)
    s.recorder.start_load(rate)
    return s


def in_canary(s: Scene, percent: int = 25, **changes: Any) -> str:
    """The second version on its way, at a weight."""
    digest = s.apply(2, change=changes.get("change", three_pods)).digest
    return s.wait_for_weight(digest, percent)


def ready_stable(history: History) -> int:
    stable = history.status.stable
    return stable.ready_replicas if stable else 0


def reason(history: History) -> str:
    return history.status.rollout.reason


def stalled(history: History) -> str:
    """Reason of the condition `Stalled`, empty when it is not."""
    found = [c for c in history.status.conditions if c.type == "Stalled" and c.status == "True"]
    return found[0].reason if found else ""


def not_rolled_back(history: History) -> bool:
    return not history.status.rolled_back


def answers_later_than(history: History, seconds: float) -> int:
    """How many requests waited for longer than that."""
    limit_ms = seconds * 1000
    return sum(ms > limit_ms for cell in history.cells() for ms in cell.latencies_ms)


@contextmanager
def disturbing(s: Scene, share: float) -> Iterator[None]:
    """A disturbance in which a share of the requests has nowhere to go."""
    began = time.time()
    with s.disturbance():
        yield
    s.may_lose(share, time.time() - began)


def assert_bounded(s: Scene, history: History, record_property: Property) -> None:
    """What users lost is kept, and no more than the share that was taken away."""
    record_property("lost_requests", failed(history))
    record_property("may_be_lost", s.lost)
    assert failed(history) <= s.lost


def test_s36_a_drained_node_costs_no_request_and_keeps_the_floor(stage: Stage) -> None:
    s = serving(stage)
    in_canary(s)
    node = nodes.workers()[0]
    begin = time.time()
    with s.draining(node):
        s.wait_for_promotion()
    history = s.stop()
    stables = [seen.status.stable for seen in history.statuses if seen.at > begin]
    floors = [stable.ready_replicas for stable in stables if stable is not None]
    assert min(floors) >= REPLICAS - 1, "the budget lets one pod go at a time"
    assert failed(history) == 0
    assert not_rolled_back(history)


@pytest.mark.full
def test_s36_traffic_leaves_a_lost_node_and_pods_come_back_elsewhere(
    stage: Stage, record_property: Property
) -> None:
    node = nodes.workers()[0]
    with nodes.cleared(node):
        s = stage(step_s=60)  # its load generator and file server are elsewhere too
    digest = s.apply(1, change=three_pods).digest
    s.wait("all pods ready", lambda h: ready_stable(h) == REPLICAS, 120)
    s.recorder.start_load(RATE)
    in_canary(s, 25)
    elsewhere = nodes.revisions_beside(node, s.namespace)
    assert set(s.history.weights) <= elsewhere, "pods are spread over nodes"
    share = nodes.share_of_requests(node, s.namespace, s.history.weights)
    began = time.time()
    with s.disturbance(), nodes.powered_off(node):
        s.wait("loss noticed", lambda h: ready_stable(h) < REPLICAS, 120)
        noticed_s = time.time() - began
        s.may_lose(share, noticed_s)  # the gateway sends requests to a dead machine until then
        s.wait("pods elsewhere", lambda h: ready_stable(h) == REPLICAS, 180)
        back_s = time.time() - began
    s.wait_for_promotion(timeout_s=400)
    history = s.stop()
    assert history.revision_of(digest)
    record_property("noticed_s", round(noticed_s))
    record_property("capacity_back_s", round(back_s))
    assert_bounded(s, history, record_property)
    assert not_rolled_back(history), "a lost node is no model's fault"


@pytest.mark.full
def test_pods_evicted_from_a_node_short_of_memory_come_back_and_are_no_models_fault(
    stage: Stage, record_property: Property
) -> None:
    def half(manifest: dict[str, Any]) -> None:
        three_pods(manifest)
        # with pods of each revision on both nodes
        manifest["spec"]["rollout"]["steps"] = [{"setWeight": {"percent": 50, "duration": "60s"}}]

    node = nodes.workers()[0]
    with nodes.cleared(node):
        s = stage()  # its load generator and file server are elsewhere too
    s.apply(1, change=three_pods)
    s.wait("all pods ready", lambda h: ready_stable(h) == REPLICAS, 120)
    s.recorder.start_load(RATE)
    revision = in_canary(s, 50, change=half)
    share = nodes.share_of_requests(node, s.namespace, s.history.weights)
    assert share > 0
    with s.disturbance(), nodes.short_of_memory(node):
        wait_until("pods are evicted", lambda: nodes.evicted_pods(s.namespace), timeout_s=120)
        wait_until("memory pressure", lambda: nodes.has_memory_pressure(node), timeout_s=30)
        assert s.history.weights[revision] == 50
    s.wait("pods are back", lambda h: ready_stable(h) == REPLICAS, 120)
    record_property("evicted_pods", len(nodes.evicted_pods(s.namespace)))
    s.may_lose(share, 0.0)  # an evicted pod has no time for a good-bye
    s.wait_for_promotion(timeout_s=300)
    history = s.stop()
    assert_bounded(s, history, record_property)
    assert not_rolled_back(history)


def wait_until(what: str, condition: Callable[[], object], timeout_s: float) -> None:
    """Wait until something holds that only the API server can be asked for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(1)


@pytest.mark.full
def test_pods_that_the_gateway_cannot_reach_are_no_models_fault(
    stage: Stage, record_property: Property
) -> None:
    """The kubelets still reach the API server, so the pods on the other side stay ready."""
    gateway = nodes.node_of_gateway()
    node = next(worker for worker in nodes.workers() if worker != gateway)
    s = serving(stage, step_s=30)
    in_canary(s)
    share = nodes.share_of_requests(node, s.namespace, s.history.weights)
    with disturbing(s, share), nodes.pods_cut_off(gateway, node):
        time.sleep(20)
    s.wait_for_promotion(timeout_s=300)
    history = s.stop()
    assert_bounded(s, history, record_property)
    late = answers_later_than(history, 2.0)
    record_property("answers_later_than_2_s", late)
    assert late > 0, "the cut was felt: what is sent again and again arrives when it is mended"
    assert not_rolled_back(history)


@pytest.mark.full
def test_a_restarted_kubelet_changes_nothing(stage: Stage) -> None:
    s = serving(stage)
    in_canary(s)
    for node in nodes.workers():
        nodes.run_on(node, "systemctl restart kubelet")
    s.wait_for_promotion()
    history = s.stop()
    assert failed(history) == 0
    assert not_rolled_back(history)


def test_a_restarted_gateway_is_no_models_fault(stage: Stage, record_property: Property) -> None:
    s = serving(stage)
    in_canary(s)
    with disturbing(s, EVERY_REQUEST):
        kubectl("-n", nodes.GATEWAY, "rollout", "restart", "deployment")
        for deployment in kubectl("-n", nodes.GATEWAY, "get", "deployments", "-o", "name").split():
            kubectl("-n", nodes.GATEWAY, "rollout", "status", deployment, "--timeout=120s")
    s.wait_for_promotion()
    history = s.stop()
    assert_bounded(s, history, record_property)
    assert not_rolled_back(history)


def test_s17_without_prometheus_the_rollout_is_held_and_goes_on_by_itself(stage: Stage) -> None:
    s = serving(stage)
    revision = in_canary(s)
    kubectl("-n", nodes.MONITORING, "scale", "deployment/prometheus", "--replicas=0")
    try:
        s.wait("held", lambda h: h.status.rollout.state == "Held", 60)
        held = s.history.status.rollout
        assert held.since_time, "status says since when"
        time.sleep(10)
        assert s.history.weights[revision] == 25, "no advance, no rollback"
    finally:
        kubectl("-n", nodes.MONITORING, "scale", "deployment/prometheus", "--replicas=1")
    s.wait_for_promotion()
    history = s.stop()
    assert failed(history) == 0
    assert not_rolled_back(history)


def test_an_image_that_is_missing_never_gets_weight(stage: Stage) -> None:
    def missing(manifest: dict[str, Any]) -> None:
        server = {"image": "localhost/nobody-built-this:1", "imagePullPolicy": "Never"}
        manifest["spec"]["server"] = manifest["spec"].get("server", {}) | server
        manifest["spec"]["rollout"]["progressDeadline"] = "15s"

    s = stage().serving(1, rate=20)
    s.apply(2, expected=Outcome.ROLLED_BACK, change=missing)
    why = s.wait_for_rollback(timeout_s=60)
    assert why.startswith("ProgressDeadlineExceeded")
    assert "ErrImageNeverPull" in why or "is not present" in why, why
    history = s.stop()
    assert failed(history) == 0
    assert all(span.percent == 0 for span in history.spans(history.status.rolled_back[-1].revision))


def test_no_room_under_a_quota_stops_the_rollout_and_not_the_service(stage: Stage) -> None:
    s = serving(stage)
    revision = in_canary(s, 5)
    pods = json.loads(kubectl("-n", s.namespace, "get", "pods", "-o", "json"))["items"]
    kubectl("-n", s.namespace, "create", "quota", "full", f"--hard=pods={len(pods)}")
    try:
        s.wait("no room", lambda h: stalled(h) == "InsufficientCapacity", 90)
        weight = s.history.weights[revision]
        time.sleep(5)
        assert s.history.weights[revision] == weight, "the weight stays"
        assert "exceeded quota" in s.history.status.rollout.message
    finally:
        kubectl("-n", s.namespace, "delete", "quota", "full")
    s.wait_for_promotion(timeout_s=240)
    history = s.stop()
    assert failed(history) == 0
    assert stalled(history) == ""


def test_s28_a_route_that_no_gateway_accepts_stops_the_rollout(
    stage: Stage, record_property: Property
) -> None:
    def no_listener(manifest: dict[str, Any]) -> None:
        three_pods(manifest)
        manifest["spec"]["route"]["parentRefs"][0]["sectionName"] = "nobody-listens"

    s = serving(stage)
    revision = in_canary(s, 5)
    with disturbing(s, EVERY_REQUEST):  # the user's own route leads nowhere for a while
        s.apply(2, change=no_listener)
        s.wait("said", lambda h: stalled(h) == "RouteNotAccepted", 30)
        pods = ready_stable(s.history)
        time.sleep(10)
        assert s.history.weights[revision] == 5, "no advance"
        assert ready_stable(s.history) == pods, "no scale-down"
        s.apply(2, change=three_pods)
        s.wait("accepted again", lambda h: stalled(h) == "", 30)
    s.wait_for_promotion()
    history = s.stop()
    assert_bounded(s, history, record_property)
    assert failed(history) > 0, "nobody was served through it"
    assert not_rolled_back(history)


@pytest.mark.full  # in the ordinary suite the rollouts of test_zero_loss.py meet kills
def test_the_operator_killed_in_mid_canary_costs_nothing(stage: Stage) -> None:
    s = serving(stage)
    in_canary(s)
    with s.disturbance():
        nodes.kill_operator()
    s.wait_for_promotion()
    history = s.stop()
    assert failed(history) == 0
    assert not_rolled_back(history)
