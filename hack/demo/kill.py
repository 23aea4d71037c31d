"""Kills the operator as the kernel does for want of memory: SIGKILL, with no time for a good-bye.

To delete a pod is something else, even by force: its processes get SIGTERM first, and the operator
gives its Lease back. And nobody can kill a container's first process from inside of it.
"""

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from hack.demo.cluster import OPERATOR, ClusterError, kubectl
from hack.demo.host import run_on

KILLED: Final = 137
"""Exit code after SIGKILL: 128 + 9."""

SEEN_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.3

SCRIPT: Final = """
import os, pathlib, signal, sys
for group in pathlib.Path('/proc').glob('[0-9]*/cgroup'):
    try:
        if any(container in group.read_text() for container in sys.argv[1:]):
            os.kill(int(group.parent.name), signal.SIGKILL)
            print(group.parent.name)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended meanwhile
"""
"""A process tells by its control group which container it is of, with every container runtime."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the operator.

    Attributes:
        pod: Name of its pod.
        node: Name of its node.
        container_id: Of this run of it: another one after a restart. Empty before the first.
        ready: Whether the pod is ready.
        restarts: How often it was restarted.
        last: The run before it, and the code that it ended with; None of the first.
    """

    pod: str
    node: str
    container_id: str
    ready: bool
    restarts: int = 0
    last: tuple[str, int] | None = None


def operator_containers() -> list[Container]:
    """Those of all pods that are not on their way out.

    Raises:
        ClusterError: There are none: whoever wants to kill them would kill nothing.
    """
    selector = f"app.kubernetes.io/name={OPERATOR}"
    listed = json.loads(kubectl("-n", OPERATOR, "get", "pods", "-l", selector, "-o", "json"))
    found = list(containers(listed["items"]))
    if not found:
        raise ClusterError(f"the namespace {OPERATOR} has no pods with {selector}")
    return found


def containers(pods: Iterable[dict[str, Any]]) -> Iterable[Container]:
    """What the API server says of pods."""
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            continue
        conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
        for status in pod["status"].get("containerStatuses", ()):
            ended = [state.get("terminated") for state in (status["state"], status["lastState"])]
            yield Container(
                pod=pod["metadata"]["name"],
                node=pod["spec"].get("nodeName", ""),
                container_id=_bare(status.get("containerID", "")),
                ready=conditions.get("Ready") == "True",
                restarts=status["restartCount"],
                last=next((_end(end) for end in ended if end), None),
            )


def kill_operator() -> list[Container]:
    """Kills every process of the operator's containers, all at once; which they were.

    The kubelet starts them again. It waits ever longer with that for one that died before: such a
    pod is removed when it is dead, and gets a successor at once.

    Raises:
        ClusterError: There was nothing to kill, or it was not seen to die of it.
    """
    victims = [container for container in operator_containers() if container.container_id]
    nodes = sorted({victim.node for victim in victims})
    if not nodes:
        raise ClusterError("no container of the operator runs")
    with ThreadPoolExecutor(len(nodes)) as pool:
        for output in pool.map(lambda node: _kill_on(node, victims), nodes):
            if not output.strip():
                raise ClusterError("a node has no process of the operator's containers")
    _wait_until_dead({victim.container_id for victim in victims})
    again = [victim.pod for victim in victims if victim.restarts]
    if again:
        kubectl("-n", OPERATOR, "delete", "pod", *again, "--grace-period=0", "--force")
    return victims


def _kill_on(node: str, victims: Iterable[Container]) -> str:
    here = [victim.container_id for victim in victims if victim.node == node]
    return run_on(node, ["python3", "-c", SCRIPT, *here])


def _wait_until_dead(victims: set[str]) -> None:
    """Until the API server has told of the end of each, and that it was by SIGKILL."""
    deadline_s = time.monotonic() + SEEN_TIMEOUT_S
    ends: dict[str, int] = {}
    while not victims <= set(ends):
        if time.monotonic() > deadline_s:
            raise ClusterError(f"not seen to die: {', '.join(sorted(victims - set(ends)))}")
        time.sleep(POLL_S)
        ends |= dict(c.last for c in operator_containers() if c.last is not None)
    others = {ends[victim] for victim in victims} - {KILLED}
    if others:
        raise ClusterError(f"the operator ended with {others}, not by SIGKILL ({KILLED})")


def _end(terminated: dict[str, Any]) -> tuple[str, int]:
    return _bare(terminated.get("containerID", "")), terminated["exitCode"]


def _bare(container_id: str) -> str:
    """Without the runtime's name before it."""
    return container_id.rpartition("//")[2]
