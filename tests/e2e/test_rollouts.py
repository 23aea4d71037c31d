"""Scenarios on the real cluster: real pods, a real gateway, real load, a real Prometheus."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kubernetes import client

from hack.demo.cluster import kubectl
from hack.demo.history import History, Outcome
from hack.demo.judge import judge
from hack.demo.recorder import new_watch
from tests.e2e.conftest import CORRUPT, HUNGRY, SLOW
from tests.e2e.scene import NAME, Scene, failed, is_ready, weights_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Stage = Callable[..., Scene]


def test_s01_s02_s33_a_good_model_takes_over_without_a_lost_request(stage: Stage) -> None:
    s = stage().serving(1)
    digest = s.apply(2).digest
    s.wait_for_weight(digest, 50)
    s.wait("all its pods", lambda h: ready_candidates(h) == 2, 30)
    pods = pods_of(s, digest)
    s.wait_for_promotion()
    s.rest()
    history = s.stop()
    judged = judge(history)
    assert judged.ok, judged.failures
    revision = history.revision_of(s.model(2).digest)
    assert revision is not None
    assert weights_of(history, revision) == [5, 25, 50, 100]
    assert failed(history) == 0
    assert len(pods) == 2
    assert pods_of(s, digest) == pods, "promotion touches no pod"
    formers = [seen.status.former for seen in history.statuses if seen.status.former is not None]
    assert formers, "there was a bake"
    assert all(former.ready_replicas == 2 for former in formers), "the old one stays for it"


def test_s03_clients_see_exactly_the_weights_that_are_configured(stage: Stage) -> None:
    weights, requests = [1, 5, 25, 60], 2_000

    def steps(manifest: dict[str, Any]) -> None:
        rollout = manifest["spec"]["rollout"]
        rollout["steps"] = [{"setWeight": {"percent": p, "duration": "13s"}} for p in weights]

    s = stage().serving(1, rate=200)
    digest = s.apply(2, change=steps).digest
    s.wait_for_promotion(timeout_s=300)
    history = s.stop()
    revision = history.revision_of(digest)
    assert revision is not None
    assert weights_of(history, revision) == [*weights, 100]
    for span in history.spans(revision):
        if span.percent in weights:
            # the gateway takes a new weight up to a second after it was told
            windows = [
                w for w in history.windows if span.start + 1 < w.start_time < span.end - w.length_s
            ]
            answers = [cell for window in windows for cell in window.cells]
            total = sum(cell.count for cell in answers)
            seen = sum(cell.count for cell in answers if cell.revision == revision)
            share = span.percent / 100
            assert total >= requests
            assert abs(seen - total * share) <= 3 * math.sqrt(total * share * (1 - share)), span


def test_s04_s33_a_model_with_errors_is_rolled_back_and_nobody_else_notices(stage: Stage) -> None:
    s = stage().serving(2)
    s.apply(3, expected=Outcome.ROLLED_BACK)
    why = s.wait_for_rollback()
    s.rest()
    history = s.stop()
    for part in ("errors", "limit 1 %", "events"):
        assert part in why
    revision = history.revision_of(s.model(3).digest)
    assert revision is not None
    assert weights_of(history, revision) == [5]
    assert failed(history, but=revision) == 0
    assert failed(history) > 0, "the model did fail"
    assert judge(history).ok, judge(history).failures
    record = json.loads(kubectl("-n", s.namespace, "get", "mrev", revision, "-o", "json"))
    assert record["status"]["rolledBackReason"]
    assert any(e["verdict"] == "fail" for e in record["status"]["evidence"])
    wait_for_event(s, "RolledBack")


def test_s05_a_slow_model_is_rolled_back_on_its_latency(stage: Stage) -> None:
    def compare(manifest: dict[str, Any]) -> None:
        latency = next(
            metric
            for metric in manifest["spec"]["rollout"]["analysis"]["metrics"]
            if metric["name"] == "latency-p99"
        )
        query = latency.pop("value")["query"]
        latency |= {
            "type": "Comparison",
            "comparison": {"query": query, "maxIncreasePercent": 50, "window": "10s"},
        }
        manifest["spec"]["rollout"]["steps"] = [{"setWeight": {"percent": 25, "duration": "2m"}}]

    s = stage().serving(1, rate=20)
    s.apply(SLOW, expected=Outcome.ROLLED_BACK, change=compare)
    why = s.wait_for_rollback()
    assert "latency-p99" in why
    assert failed(s.stop()) == 0


def test_s18_with_prometheus_down_a_crashing_model_is_rolled_back(stage: Stage) -> None:
    s = stage().serving(1, rate=20)
    kubectl("-n", "monitoring", "scale", "deployment/prometheus", "--replicas=0")
    try:
        s.apply(HUNGRY, expected=Outcome.ROLLED_BACK)
        why = s.wait_for_rollback()
    finally:
        kubectl("-n", "monitoring", "scale", "deployment/prometheus", "--replicas=1")
        kubectl("-n", "monitoring", "rollout", "status", "deployment/prometheus", "--timeout=120s")
    assert why.startswith(("ReadinessCollapsed", "CrashLooping", "OutOfMemory"))
    history = s.stop()
    assert is_ready(history, s.model(1).digest)


def test_s25_drift_is_undone_within_a_second(stage: Stage) -> None:
    s = stage(step_s=30).serving(1)
    digest = s.apply(2).digest
    revision = s.wait_for_weight(digest, 5)
    s.wait("confirmed", lambda h: confirmed(h, revision) == 5, 30)
    planned, began = s.history.routes[-1].weights, time.time()
    patch = [{"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": 77}]
    kubectl("-n", s.namespace, "patch", "httproute", NAME, "--type=json", "-p", json.dumps(patch))
    s.wait("drift undone", lambda h: len(drift(h, planned, began)) == 2, 10)
    drifted, undone = drift(s.history, planned, began)
    assert undone - drifted < 1.0
    wait_for_event(s, "RouteDrift")


def drift(history: History, planned: Mapping[str, int], since: float) -> list[float]:
    """When the route was first seen with other weights than planned, and when with these again."""
    routes = iter([r for r in history.routes if r.at > since])
    drifted = next((r.at for r in routes if r.weights != planned), None)
    undone = next((r.at for r in routes if r.weights == planned), None)
    return [at for at in (drifted, undone) if at is not None]


@pytest.mark.parametrize("fault", ["digest", "corrupt"])
def test_s29_a_model_that_cannot_be_loaded_never_gets_weight(stage: Stage, fault: str) -> None:
    def lie(manifest: dict[str, Any]) -> None:
        manifest["spec"]["model"]["digest"] = "sha256:" + "0" * 64

    s = stage().serving(1, rate=20)
    if fault == "digest":
        s.apply(2, expected=Outcome.ROLLED_BACK, change=lie)
    else:
        s.apply(CORRUPT, expected=Outcome.ROLLED_BACK)
    why = s.wait_for_rollback(timeout_s=60)
    history = s.stop()
    revision = history.revision_of(history.applied[-1].digest)
    assert revision is not None
    assert weights_of(history, revision) == []
    assert failed(history) == 0
    assert why.startswith("DigestMismatch" if fault == "digest" else "InvalidModel")
    if fault == "digest":
        assert s.model(2).digest in why, "the loader's message names what it found"


def test_s30_collapsed_readiness_takes_the_weight_within_two_seconds(
    stage: Stage, api: client.ApiClient
) -> None:
    def half(manifest: dict[str, Any]) -> None:
        manifest["spec"]["rollout"]["steps"] = [{"setWeight": {"percent": 50, "duration": "2m"}}]

    s = stage().serving(1)
    digest = s.apply(2, expected=Outcome.ROLLED_BACK, change=half).digest
    revision = s.wait_for_weight(digest, 50)
    gone_at = delete_pods(client.CoreV1Api(api), s.namespace, revision)
    why = s.wait_for_rollback(timeout_s=20)
    assert why.startswith("ReadinessCollapsed")
    spans = s.history.spans(revision)
    assert spans[-1].percent == 0
    assert spans[-1].start - gone_at < 2.0


def confirmed(history: History, revision: str) -> int | None:
    """The weight that the operator knows the gateway to apply: only from then on others drift."""
    shares = {entry.revision: entry.confirmed_percent for entry in history.status.traffic}
    return shares.get(revision)


def delete_pods(core: Any, namespace: str, revision: str) -> float:
    """Delete a revision's pods without grace; when the API server tells that the last is going."""
    selector = f"modeldeployment.dev/revision={revision}"
    pods = core.list_namespaced_pod(namespace, label_selector=selector)
    left = {pod.metadata.name for pod in pods.items}
    events = new_watch().stream(
        core.list_namespaced_pod,
        namespace,
        label_selector=selector,
        resource_version=pods.metadata.resource_version,
        timeout_seconds=30,
    )
    with ThreadPoolExecutor() as pool:
        for name in left:
            pool.submit(core.delete_namespaced_pod, name, namespace, grace_period_seconds=0)
        for event in events:
            if event["type"] == "DELETED" or event["object"].metadata.deletion_timestamp:
                left.discard(event["object"].metadata.name)
            if not left:
                return time.time()
    raise AssertionError(f"{left} were not deleted")


def wait_for_event(s: Scene, reason: str, timeout_s: float = 10) -> None:
    """Events are posted last, after everything that traffic depends on."""
    deadline = time.monotonic() + timeout_s
    command = [
        "-n",
        s.namespace,
        "get",
        "events",
        f"--field-selector=reason={reason}",
        "-o",
        "name",
    ]
    while not kubectl(*command):
        assert time.monotonic() < deadline, f"no event {reason}"
        time.sleep(0.5)


def ready_candidates(history: History) -> int:
    candidate = history.status.candidate
    return candidate.ready_replicas if candidate is not None else 0


def pods_of(s: Scene, digest: str) -> dict[str, int]:
    """Restarts by uid of a model's pods."""
    revision = s.history.revision_of(digest)
    selector = f"modeldeployment.dev/name={NAME},modeldeployment.dev/revision={revision}"
    listed = json.loads(kubectl("-n", s.namespace, "get", "pods", "-l", selector, "-o", "json"))
    return {
        pod["metadata"]["uid"]: sum(c["restartCount"] for c in pod["status"]["containerStatuses"])
        for pod in listed["items"]
    }
