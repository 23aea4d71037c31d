"""Takes a node away under load: its power, where the cluster is this project's, else its pods."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hack.demo.cluster import OPERATOR, ClusterError, kubectl
from model_operator.api.labels import NAME, REVISION

WORKER: Final = re.compile(r"-worker(\d*)$")
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A pod and where it is.

    Attributes:
        node: Name of its node.
        revision: Revision that it serves; empty for the pods that the demo itself depends on.
        ready: Whether it is ready.
    """

    node: str
    revision: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The node to take away.

    Attributes:
        node: Its name.
        share: Share of the requests that its pods have, 0 to 1.
    """

    node: str
    share: float


def choose_node(pods: Iterable[PlacedPod], weights: Mapping[str, int]) -> Choice | None:
    """The node whose loss costs most, but no revision on the route its last ready pod.

    Redundancy is what is on trial: not what happens when there is none.

    Args:
        pods: Everything that counts. A node with a ready pod of no revision stays.
        weights: The route, percent by revision.
    """
    ready = [pod for pod in pods if pod.ready]
    kept = {pod.node for pod in ready if not pod.revision}
    choices = []
    for node in sorted({pod.node for pod in ready if pod.revision} - kept):
        elsewhere = {pod.revision for pod in ready if pod.node != node}
        survives = all(percent == 0 or name in elsewhere for name, percent in weights.items())
        share = share_of(node, ready, weights)
        if survives and share > 0:
            choices.append(Choice(node, share))
    return max(choices, key=lambda choice: choice.share, default=None)


def share_of(node: str, pods: Iterable[PlacedPod], weights: Mapping[str, int]) -> float:
    """Share of the requests, 0 to 1, that the ready pods on a node have."""
    ready = [pod for pod in pods if pod.ready]
    share = 0.0
    for revision, percent in weights.items():
        nodes = [pod.node for pod in ready if pod.revision == revision]
        share += percent / 100 * nodes.count(node) / max(1, len(nodes))
    return share


def placed_pods(namespace: str) -> list[PlacedPod]:
    """The revisions' pods, and what the demo depends on.

    The load generator must not go with a node, and neither must an operator of which there is only
    one: Kubernetes starts it elsewhere after five minutes.
    """
    pods = _pods(namespace)
    operators = _pods(OPERATOR)
    if len({pod["spec"].get("nodeName") for pod in operators if _is_ready(pod)}) == 1:
        pods += operators
    return [
        PlacedPod(
            node=pod["spec"]["nodeName"],
            revision=pod["metadata"]["labels"].get(REVISION, ""),
            ready=_is_ready(pod),
        )
        for pod in pods
        if "nodeName" in pod["spec"]
    ]


def node_is_ready(node: str) -> bool:
    """Whether Kubernetes takes a node for alive."""
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", node, "-o", f"jsonpath={path}") == "True"


def is_own_cluster() -> bool:
    """Whether KUBECONFIG is that of the cluster that `make cluster-up` starts."""
    shown = subprocess.run(
        [sys.executable, "-m", "hack.cluster", "kubeconfig"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    own, given = Path(shown.stdout.strip()), Path(os.environ.get("KUBECONFIG", ""))
    return shown.returncode == 0 and own.exists() and given.exists() and own.samefile(given)


def cut_power(node: str) -> None:
    """Stops a worker of the project's own cluster as a machine that loses its power stops.

    Raises:
        ClusterError: It did not stop.
    """
    _worker("stop", node)


def restore_power(node: str) -> None:
    """Starts it again and waits until it is ready.

    Raises:
        ClusterError: It did not become ready.
    """
    _worker("start", node)


def drain(node: str, name: str) -> None:
    """Evicts the pods of a ModelDeployment from a node, as an administrator does before an update.

    Raises:
        ClusterError: They could not be evicted.
    """
    kubectl("drain", node, f"--pod-selector={NAME}={name}", "--ignore-daemonsets",
            "--delete-emptydir-data", "--timeout=180s")  # fmt: skip


def uncordon(node: str) -> None:
    """Lets a drained node have pods again."""
    kubectl("uncordon", node)


def _worker(action: str, node: str) -> None:
    found = WORKER.search(node)
    if found is None:
        raise ClusterError(f"{node} is no worker of the project's cluster")
    done = subprocess.run(
        [sys.executable, "-m", "hack.cluster", "node", action, found.group(1) or "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ClusterError(f"{action} {node}: {done.stderr.strip()}")


def _pods(namespace: str) -> list[dict[str, Any]]:
    pods: list[dict[str, Any]] = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))[
        "items"
    ]
    return pods


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
