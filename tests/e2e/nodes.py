"""What tests do to nodes: from inside them through a privileged pod, or to their power."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import yaml

from hack.demo import host, kill
from hack.demo.cluster import OPERATOR, kubectl
from hack.demo.nodes import (
    cut_power,
    drain,
    is_own_cluster,
    placed_pods,
    restore_power,
    share_of,
    uncordon,
)

GATEWAY = "gateway"
MONITORING = "monitoring"
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
MISSING_MIB = 300
"""More than a pod or two give back. NB: what a kubelet reserves is no longer there for pods at all:
far above what is free, it would have to give up the node."""

LEADS_AGAIN_S = 60.0
"""A lease that was not given back ends after 15 s; then there is everything to be read."""


def workers() -> list[str]:
    """Names of the nodes that are no control plane, sorted."""
    listed = json.loads(
        kubectl("get", "nodes", "-l", "!node-role.kubernetes.io/control-plane", "-o", "json")
    )
    return sorted(node["metadata"]["name"] for node in listed["items"])


def node_of_gateway() -> str:
    """The node that the gateway runs on."""
    return kubectl("-n", GATEWAY, "get", "pods", "-o", "jsonpath={.items[0].spec.nodeName}")


def share_of_requests(node: str, namespace: str, weights: Mapping[str, int]) -> float:
    """Share of a namespace's requests, 0 to 1, that the pods on a node have."""
    return share_of(node, placed_pods(namespace), weights)


def revisions_beside(node: str, namespace: str) -> set[str]:
    """Revisions that have a ready pod on another node."""
    pods = placed_pods(namespace)
    return {pod.revision for pod in pods if pod.ready and pod.node != node}


def pod_range(node: str) -> str:
    """CIDR of the node's pods."""
    return kubectl("get", "node", node, "-o", "jsonpath={.spec.podCIDR}")


def run_on(node: str, script: str) -> str:
    """Run a shell script as root in the node's own namespaces; its output."""
    enter = ["nsenter", "--target=1", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
    return host.run_on(node, [*enter, "sh", "-ec", script])


@contextmanager
def cleared(node: str) -> Iterator[None]:
    """Within it the gateway, Prometheus and the operator run elsewhere, and nothing new comes.

    What is lost with a node is then the model's pods, and no test tells of the loss of a gateway.
    """
    kubectl("cordon", node)
    try:
        for namespace in (GATEWAY, MONITORING, OPERATOR):
            here = f"--field-selector=spec.nodeName={node}"
            kubectl("-n", namespace, "delete", "pod", here, "--wait=true")
            for deployment in kubectl("-n", namespace, "get", "deployments", "-o", "name").split():
                kubectl("-n", namespace, "rollout", "status", deployment, "--timeout=120s")
        yield
    finally:
        kubectl("uncordon", node)


@contextmanager
def powered_off(node: str) -> Iterator[None]:
    """Within it a node has no power; afterwards it is back and ready.

    Skips the test on a cluster that is not the project's own: nothing else can do that.
    """
    if not is_own_cluster():
        pytest.skip("only the project's own cluster has nodes that can be switched off")
    cut_power(node)
    try:
        yield
    finally:
        restore_power(node)


@contextmanager
def pods_cut_off(node: str, other: str) -> Iterator[None]:
    """Within it nothing that goes out from a node, or its pods, arrives at the other's pods."""
    rule = f"to {pod_range(other)} blackhole pref 10"
    run_on(node, f"ip rule add {rule}")
    try:
        yield
    finally:
        run_on(node, f"ip rule del {rule}")


@contextmanager
def drained(node: str, name: str) -> Iterator[None]:
    """Within it a node has none of a ModelDeployment's pods, and takes nothing new."""
    drain(node, name)
    try:
        yield
    finally:
        uncordon(node)


@contextmanager
def short_of_memory(node: str) -> Iterator[None]:
    """Within it a node's kubelet takes its memory for used up, and evicts pods.

    Skips the test on a cluster that is not the project's own: its kubelets may be set up otherwise.
    """
    if not is_own_cluster():
        pytest.skip("only of the project's own cluster it is known how its kubelets are set up")
    before = run_on(node, f"cat {KUBELET_CONFIG}")
    config = yaml.safe_load(before)
    least = (memory_available(node) >> 20) + MISSING_MIB
    config["evictionHard"] = {**config["evictionHard"], "memory.available": f"{least}Mi"}
    config["evictionPressureTransitionPeriod"] = "5s"
    try:
        configure_kubelet(node, yaml.safe_dump(config))
        yield
    finally:
        configure_kubelet(node, before)
        kubectl("wait", f"node/{node}", "--for=condition=MemoryPressure=false", "--timeout=120s")


def memory_available(node: str) -> int:
    """Bytes, as the kubelet counts them."""
    summary = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    available: int = summary["node"]["memory"]["availableBytes"]
    return available


def configure_kubelet(node: str, config: str) -> None:
    """Write a kubelet's configuration file, and have it read."""
    encoded = base64.b64encode(config.encode()).decode()
    run_on(node, f"echo {encoded} | base64 -d > {KUBELET_CONFIG} && systemctl restart kubelet")


def has_memory_pressure(node: str) -> bool:
    """Whether the node says that it is short of memory."""
    path = '{.status.conditions[?(@.type=="MemoryPressure")].status}'
    return kubectl("get", "node", node, "-o", f"jsonpath={path}") == "True"


def evicted_pods(namespace: str) -> list[str]:
    """Names of the pods that a kubelet has evicted."""
    pods = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
    return [pod["metadata"]["name"] for pod in pods if pod["status"].get("reason") == "Evicted"]


def kill_operator() -> None:
    """All of its containers at once, with SIGKILL; then wait until one of them leads again."""
    kill.kill_operator()
    dead = datetime.now(UTC)
    deadline = time.monotonic() + LEADS_AGAIN_S
    while not (renewed := lease_renewed()) or renewed <= dead:
        assert time.monotonic() < deadline, f"nobody renewed the lease since {renewed}"
        time.sleep(0.5)


def lease_renewed() -> datetime | None:
    """When the operator's Lease was renewed last; None before the first time."""
    path = "jsonpath={.spec.renewTime}"
    text = kubectl("-n", OPERATOR, "get", "lease", OPERATOR, "-o", path)
    return datetime.fromisoformat(text) if text else None
