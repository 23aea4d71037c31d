"""A short storm in mid-canary: Prometheus stopped, the operator killed, a node stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hack.demo import kill, nodes
from hack.demo.cluster import ClusterError, kubectl
from hack.demo.follow import dwell, follow, meanwhile
from hack.demo.history import Applied, Fault, FaultKind, FaultPhase, History
from hack.demo.manifests import MODEL_DEPLOYMENT
from hack.demo.recorder import Recorder
from hack.demo.screen import Screen

PROMETHEUS = ("-n", "monitoring", "deployment/prometheus")
PROMETHEUS_AWAY_S: Final = 60.0
HELD_TIMEOUT_S: Final = 30.0
BACK_TIMEOUT_S: Final = 120.0

NOTICED_TIMEOUT_S: Final = 120.0
"""Kubernetes takes a node for dead after 50 s without a sign of life (40 s before 1.32)."""

WITHOUT_NODE_S: Final = 15.0
"""After that, to see that the rest serves."""

DURATION_S: Final = PROMETHEUS_AWAY_S + 50.0 + WITHOUT_NODE_S + 45.0
"""What it adds to a rollout, about."""


@dataclass(frozen=True, slots=True)
class Storm:
    """Breaks one thing after the other while a version is rolled out.

    Attributes:
        recorder: Follows the rollout, and notes what is broken.
        screen: Shows it.
        namespace: Where the model is served.
        weight_timeout_s: How long a weight may take.
    """

    recorder: Recorder
    screen: Screen
    namespace: str
    weight_timeout_s: float

    def strike(self, applied: Applied) -> None:
        """At the second weight Prometheus goes, and the operator meanwhile; at the third a node.

        A rollout that does not get there is left alone: it is judged by its outcome.
        """
        *_, second, third = applied.steps
        if self._wait_for_weight(applied, second):
            self._without_prometheus()
        if self._wait_for_weight(applied, third):
            self._without_node()

    def _wait_for_weight(self, applied: Applied, percent: int) -> bool:
        self.screen.awaiting(f"{percent} %, to break something", self.weight_timeout_s)

        def reached(history: History) -> bool:
            shares = {share.revision: share.confirmed_percent for share in history.status.traffic}
            revision = history.revision_of(applied.digest)
            return revision is not None and (shares.get(revision) or 0) >= percent

        return follow(self.recorder, self.screen, reached, self.weight_timeout_s)

    def _without_prometheus(self) -> None:
        namespace, deployment = PROMETHEUS[:2], PROMETHEUS[2]
        self._note(FaultKind.PROMETHEUS_STOPPED, FaultPhase.BEGAN, "monitoring/prometheus")
        back_s = time.monotonic() + PROMETHEUS_AWAY_S
        try:
            self._do(lambda: kubectl(*namespace, "scale", deployment, "--replicas=0"))
            self.screen.awaiting("the rollout to be held", HELD_TIMEOUT_S)
            follow(self.recorder, self.screen, _is_held, HELD_TIMEOUT_S)
            self._kill_operator()
            self.screen.awaiting("Prometheus to come back", max(0.0, back_s - time.monotonic()))
            dwell(self.recorder, self.screen, back_s - time.monotonic())
        finally:
            kubectl(*namespace, "scale", deployment, "--replicas=1")
        timeout = f"--timeout={BACK_TIMEOUT_S:.0f}s"
        self._do(lambda: kubectl(*namespace, "rollout", "status", deployment, timeout))
        self._note(FaultKind.PROMETHEUS_STOPPED, FaultPhase.MENDED)

    def _kill_operator(self) -> None:
        before = kill.operator_containers()
        self._note(
            FaultKind.OPERATOR_KILLED, FaultPhase.BEGAN, ", ".join(each.pod for each in before)
        )
        self._do(kill.kill_operator)
        self.screen.awaiting("the operator to be back", BACK_TIMEOUT_S)

        def back() -> bool:
            now = kill.operator_containers()
            fresh = not {c.container_id for c in now} & {c.container_id for c in before}
            return fresh and len(now) >= len(before) and all(each.ready for each in now)

        if self._until(back, BACK_TIMEOUT_S):
            self._note(FaultKind.OPERATOR_KILLED, FaultPhase.MENDED)

    def _without_node(self) -> None:
        own = nodes.is_own_cluster()
        kind = FaultKind.NODE_STOPPED if own else FaultKind.NODE_DRAINED
        pods = nodes.placed_pods(self.namespace)
        choice = nodes.choose_node(pods, self.recorder.history().weights)
        if choice is None:
            self._note(kind, FaultPhase.BEGAN, "each node has the last ready pod of something")
            return
        self._note(kind, FaultPhase.BEGAN, choice.node, choice.share)
        if own:
            self._without_power(choice.node)
        else:
            self._do(lambda: nodes.drain(choice.node, MODEL_DEPLOYMENT))
            self._do(lambda: nodes.uncordon(choice.node))
        self._note(kind, FaultPhase.MENDED)

    def _without_power(self, node: str) -> None:
        try:
            self._do(lambda: nodes.cut_power(node))
            self.screen.awaiting("Kubernetes to take the node for dead", NOTICED_TIMEOUT_S)
            if self._until(lambda: not nodes.node_is_ready(node), NOTICED_TIMEOUT_S):
                self._note(FaultKind.NODE_STOPPED, FaultPhase.NOTICED, node)
            self.screen.awaiting("the node to be started again", WITHOUT_NODE_S)
            dwell(self.recorder, self.screen, WITHOUT_NODE_S)
        finally:
            self._do(lambda: nodes.restore_power(node))

    def _note(
        self, kind: FaultKind, phase: FaultPhase, detail: str = "", share: float = 0.0
    ) -> None:
        self.recorder.fault(Fault(time.time(), kind, phase, detail, share))
        words = f" ({detail})" if detail else ""
        self.screen.say(f"[bold]{kind}[/bold]: {phase}{words}")

    def _do(self, work: Callable[[], object]) -> None:
        meanwhile(self.recorder, self.screen, work)

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Asks the API server again and again; False when the answer is never yes."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if meanwhile(self.recorder, self.screen, lambda: _tried(condition)):
                return True
            dwell(self.recorder, self.screen, 1.0)
        return False


def _tried(condition: Callable[[], bool]) -> bool:
    """A condition that cannot be asked now does not hold."""
    try:
        return condition()
    except ClusterError:
        return False


def _is_held(history: History) -> bool:
    return history.status.rollout.state == "Held"
