"""Runs a command on a node as root, from a privileged pod that sees all processes of the node."""

import json
import time
from collections.abc import Sequence
from typing import Final

from hack.demo.cluster import ClusterError, kubectl

NAMESPACE: Final = "kube-system"
IMAGE: Final = "localhost/model-demo:dev"
TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.3


def run_on(node: str, command: Sequence[str]) -> str:
    """Runs a command in a node's process namespace; what it printed.

    Raises:
        ClusterError: The node takes no privileged pod, or the command failed.
    """
    name = f"on-{node[-12:].strip('-.')}-{time.time_ns() % 10**9}"
    kubectl(
        "-n", NAMESPACE, "run", name, f"--image={IMAGE}", "--restart=Never",
        f"--overrides={json.dumps(_overrides(name, node, command))}",
    )  # fmt: skip
    try:
        phase = _wait_until_over(name)
        output = kubectl("-n", NAMESPACE, "logs", name)
    finally:
        kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false", "--grace-period=1")
    if phase != "Succeeded":
        raise ClusterError(f"a command on {node} failed: {output.strip()}")
    return output


def _overrides(name: str, node: str, command: Sequence[str]) -> dict[str, object]:
    container = {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
    }
    spec = {
        # NB: not through the scheduler, which lets nothing onto a cordoned node
        "nodeName": node,
        # and a node that is short of memory takes nothing less
        "priorityClassName": "system-node-critical",
        "hostPID": True,
        "restartPolicy": "Never",
        "containers": [container],
    }
    return {"spec": spec}


def _wait_until_over(name: str) -> str:
    """The phase in which a pod ended."""
    deadline_s = time.monotonic() + TIMEOUT_S
    phase = ""
    while time.monotonic() < deadline_s:
        phase = kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "jsonpath={.status.phase}")
        if phase in {"Succeeded", "Failed"}:
            return phase
        time.sleep(POLL_S)
    raise ClusterError(f"the pod {NAMESPACE}/{name} did not end in {TIMEOUT_S:g} s: it is {phase}")
