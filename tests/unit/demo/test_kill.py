"""What counts as a kill of the operator. The kill itself is played in e2e."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hack.demo import kill
from hack.demo.cluster import ClusterError
from hack.demo.kill import SCRIPT, Container, containers, kill_operator

Pod = dict[str, Any]


def pod(
    name: str,
    container: str,
    *,
    ended: tuple[str, int] | None = None,
    restarts: int = 0,
    leaving: bool = False,
) -> Pod:
    last = {} if ended is None else {"containerID": f"containerd://{ended[0]}"}
    return {
        "metadata": {"name": name, **({"deletionTimestamp": "now"} if leaving else {})},
        "spec": {"nodeName": f"node-of-{name}"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "containerID": f"containerd://{container}",
                    "restartCount": restarts,
                    "state": {"running": {}},
                    "lastState": {"terminated": {**last, "exitCode": ended[1]}} if ended else {},
                }
            ],
        },
    }


class Cluster:
    """Answers kubectl with one list of pods after the other, the last one for ever."""

    def __init__(self) -> None:
        self.pods: list[list[Pod]] = []
        self.deleted: list[str] = []
        self.killed: dict[str, list[str]] = {}
        self.output = "17\n"

    def kubectl(self, *arguments: str) -> str:
        if "delete" in arguments:
            self.deleted += [argument for argument in arguments if argument.startswith("pod-")]
            return ""
        return json.dumps({"items": self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]})

    def run_on(self, node: str, command: list[str]) -> str:
        self.killed[node] = command[3:]
        return self.output


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster()
    monkeypatch.setattr(kill, "kubectl", fake.kubectl)
    monkeypatch.setattr(kill, "run_on", fake.run_on)
    monkeypatch.setattr(kill, "POLL_S", 0.0)
    monkeypatch.setattr(kill, "SEEN_TIMEOUT_S", 0.05)
    return fake


def test_every_pod_dies_on_its_node(cluster: Cluster) -> None:
    cluster.pods = [
        [pod("pod-a", "one"), pod("pod-b", "two"), pod("pod-c", "three", leaving=True)],
        [pod("pod-a", "four", ended=("one", 137)), pod("pod-b", "two")],
        [pod("pod-a", "four", ended=("one", 137)), pod("pod-b", "five", ended=("two", 137))],
    ]

    assert [victim.pod for victim in kill_operator()] == ["pod-a", "pod-b"]

    assert cluster.killed == {"node-of-pod-a": ["one"], "node-of-pod-b": ["two"]}
    assert cluster.deleted == []


def test_a_pod_that_died_before_is_replaced(cluster: Cluster) -> None:
    cluster.pods = [
        [pod("pod-a", "one", restarts=1), pod("pod-b", "two")],
        [pod("pod-a", "three", ended=("one", 137)), pod("pod-b", "four", ended=("two", 137))],
    ]

    kill_operator()

    assert cluster.deleted == ["pod-a"]


def nobody(cluster: Cluster) -> None:
    cluster.pods = [[]]


def all_leave(cluster: Cluster) -> None:
    cluster.pods = [[pod("pod-a", "one", leaving=True)]]


def none_runs(cluster: Cluster) -> None:
    cluster.pods = [[pod("pod-a", "")]]


def no_process(cluster: Cluster) -> None:
    cluster.pods = [[pod("pod-a", "one")]]
    cluster.output = ""


def survives(cluster: Cluster) -> None:
    cluster.pods = [[pod("pod-a", "one")], [pod("pod-a", "one", ended=("zero", 137))]]


def says_good_bye(cluster: Cluster) -> None:
    cluster.pods = [[pod("pod-a", "one")], [pod("pod-a", "two", ended=("one", 0))]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (nobody, "has no pods with"),
        (all_leave, "has no pods with"),
        (none_runs, "no container of the operator runs"),
        (no_process, "no process of the operator's containers"),
        (survives, "not seen to die: one"),
        (says_good_bye, "not by SIGKILL"),
    ],
)
def test_what_killed_nobody_is_an_error(
    cluster: Cluster, given: Callable[[Cluster], None], told: str
) -> None:
    given(cluster)
    with pytest.raises(ClusterError, match=told):
        kill_operator()


def test_a_container_that_waits_for_its_restart_has_ended() -> None:
    crashed = pod("pod-a", "one")
    status = crashed["status"]["containerStatuses"][0]
    status["state"] = {"terminated": {"containerID": "containerd://one", "exitCode": 137}}

    assert list(containers([crashed])) == [
        Container("pod-a", "node-of-pod-a", "one", ready=True, last=("one", 137))
    ]


def test_the_script_leaves_others_alone() -> None:
    unknown = "0" * 64
    assert unknown not in Path("/proc/self/cgroup").read_text()

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, unknown], capture_output=True, text=True, check=True
    )

    assert done.stdout == ""
