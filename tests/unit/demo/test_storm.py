"""What a storm breaks, it mends, whatever comes in between. The storm itself is played in e2e."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hack.demo import kill, nodes, storm
from hack.demo.cluster import ClusterError
from hack.demo.history import Fault, FaultKind, FaultPhase, History, Outcome
from hack.demo.kill import Container
from hack.demo.screen import Screen
from hack.demo.storm import Storm
from tests.unit.demo.histories import applied, good_run, revision

SCALED = ["scale deployment/prometheus --replicas=0", "scale deployment/prometheus --replicas=1"]


class Notes:
    """A recorder of a rollout at its last weight, which notes faults."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def history(self) -> History:
        return good_run().history()

    def wait_for_change(self, timeout_s: float) -> None:
        del timeout_s

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every kubectl command; the operator's pods cannot be listed."""
    given: list[str] = []

    def kubectl(*arguments: str) -> str:
        given.append(" ".join(arguments[2:]))
        if "pods" in arguments:
            raise ClusterError("no pods")
        return ""

    monkeypatch.setattr(storm, "kubectl", kubectl)
    monkeypatch.setattr(kill, "kubectl", kubectl)
    monkeypatch.setattr(storm, "PROMETHEUS_AWAY_S", 0.0)
    monkeypatch.setattr(storm, "HELD_TIMEOUT_S", 0.0)
    monkeypatch.setattr(storm, "WITHOUT_NODE_S", 0.0)
    monkeypatch.setattr(storm, "NOTICED_TIMEOUT_S", 0.0)
    return given


@pytest.fixture
def strike(notes: Notes) -> Callable[[], None]:
    second = applied(2, 1010.0, Outcome.PROMOTED)
    recorder: Any = notes
    the_storm = Storm(recorder, Screen(Console(file=StringIO())), "demo", weight_timeout_s=1.0)
    return lambda: the_storm.strike(second)


def test_prometheus_is_brought_back_when_the_storm_breaks_off(
    strike: Callable[[], None], commands: list[str], notes: Notes
) -> None:
    with pytest.raises(ClusterError, match="no pods"):
        strike()

    assert [command for command in commands if command.startswith("scale")] == SCALED
    assert [fault.phase for fault in notes.faults] == [FaultPhase.BEGAN]


@pytest.mark.usefixtures("commands")
def test_a_node_is_started_again_when_the_storm_breaks_off(
    strike: Callable[[], None], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    pods = [
        nodes.PlacedPod(node, revision(version), ready=True)
        for node in ("one-worker", "one-worker2")
        for version in (1, 2)
    ]

    def fail(node: str) -> None:
        done.append(f"cut {node}")
        raise ClusterError("the engine is away")

    monkeypatch.setattr(Storm, "_without_prometheus", lambda _: None)
    fakes = SimpleNamespace(
        is_own_cluster=lambda: True,
        placed_pods=lambda _: pods,
        choose_node=nodes.choose_node,
        cut_power=fail,
        restore_power=lambda node: done.append(f"restore {node}"),
    )
    monkeypatch.setattr(storm, "nodes", fakes)

    with pytest.raises(ClusterError, match="the engine is away"):
        strike()

    assert done == ["cut one-worker", "restore one-worker"]
    (fault,) = notes.faults
    assert (fault.kind, fault.phase, fault.share) == (
        FaultKind.NODE_STOPPED,
        FaultPhase.BEGAN,
        0.5,
    )


@pytest.mark.parametrize(
    ("after", "phases"),
    [
        pytest.param("another", [FaultPhase.BEGAN, FaultPhase.MENDED], id="started again"),
        pytest.param("one", [FaultPhase.BEGAN], id="still the same"),
    ],
)
@pytest.mark.usefixtures("commands")
def test_the_operator_is_back_when_other_containers_are_ready(
    after: str,
    phases: list[FaultPhase],
    strike: Callable[[], None],
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = [[Container("operator-a", "worker", "one", ready=True)]]
    fakes = SimpleNamespace(
        operator_containers=lambda: seen[-1],
        kill_operator=lambda: seen.append([Container("operator-a", "worker", after, ready=True)]),
    )
    monkeypatch.setattr(storm, "kill", fakes)
    monkeypatch.setattr(storm, "BACK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(Storm, "_without_node", lambda _: None)

    strike()

    kills = [fault for fault in notes.faults if fault.kind is FaultKind.OPERATOR_KILLED]
    assert kills[0].detail == "operator-a"
    assert [fault.phase for fault in kills] == phases
