"""The kind cluster itself: making it, looking at it, and loading images into its nodes."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hack.cluster.addons import GATEWAY_NODE_PORT, PROMETHEUS_NODE_PORT
from hack.cluster.archive import image_ids
from hack.cluster.process import ClusterError, Runner, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.cluster.engine import Engine
    from hack.cluster.layout import Layout
    from hack.cluster.state import Ports

WORKERS = 2
_CREATE_S = 300.0
_DELETE_S = 120.0
_LOAD_S = 300.0
_RESTART_S = 120.0
_POLL_S = 0.5
_INBOX = "/inbox"


def kind_config(name: str, image: str, ports: Ports, inbox: Path) -> str:
    """Return kind's configuration of a cluster with one control plane and two workers.

    Args:
        name: the cluster's.
        image: of the nodes.
        ports: on the machine's loopback, for the API, the gateway and Prometheus.
        inbox: a folder of the machine that every node gets to see.
    """

    def node(role: str, **more: object) -> dict[str, object]:
        mount = {"hostPath": str(inbox), "containerPath": _INBOX, "readOnly": True}
        return {"role": role, "image": image, "extraMounts": [mount], **more}

    published = [
        {"containerPort": node_port, "hostPort": port, "listenAddress": "127.0.0.1"}
        for node_port, port in (
            (GATEWAY_NODE_PORT, ports.gateway),
            (PROMETHEUS_NODE_PORT, ports.prometheus),
        )
    ]
    kubelet = {
        "kind": "KubeletConfiguration",
        # Machines with control groups of version 1 are still about; newer kubelets refuse them.
        "failCgroupV1": False,
    }
    return yaml.safe_dump(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "name": name,
            "networking": {"apiServerAddress": "127.0.0.1", "apiServerPort": ports.api},
            "kubeadmConfigPatches": [yaml.safe_dump(kubelet)],
            "nodes": [
                node("control-plane", extraPortMappings=published),
                *(node("worker") for _ in range(WORKERS)),
            ],
        },
        sort_keys=False,
    )


@dataclass(frozen=True, slots=True)
class Node:
    """One node's container."""

    name: str
    running: bool


@dataclass(frozen=True, slots=True)
class Kind:
    """One cluster in one engine.

    Attributes:
        programs: folder with ``kind`` and ``kubectl``.
    """

    layout: Layout
    engine: Engine
    programs: Path
    log: Path

    @property
    def run(self) -> Runner:
        """Runs programs that find the engine and the cluster."""
        return Runner(self.log, {**self.engine.env, "KUBECONFIG": str(self.layout.kubeconfig)})

    @property
    def kubectl(self) -> Path:
        """The matching kubectl."""
        return self.programs / "kubectl"

    def nodes(self) -> tuple[Node, ...]:
        """Return the cluster's containers, the control plane first."""
        listed = self.run.output(
            *("docker", "ps", "--all", "--format", "{{.Names}} {{.State}}"),
            *("--filter", f"label=io.x-k8s.kind.cluster={self.layout.cluster}"),
        )
        return parse_nodes(listed)

    def is_up(self) -> bool:
        """Tell whether the cluster is whole: all nodes run and the API answers."""
        nodes = self.nodes()
        return (
            len(nodes) == 1 + WORKERS
            and all(node.running for node in nodes)
            and self.run.succeeds(self.kubectl, "get", "--raw=/readyz", timeout_s=10)
        )

    def revive(self) -> bool:
        """Start the nodes of a cluster that was made to its end; tell whether that was enough."""
        nodes = self.nodes()
        # kind writes the credentials last.
        if len(nodes) != 1 + WORKERS or not self.layout.kubeconfig.exists():
            return False
        try:
            for node in nodes:
                if not node.running:
                    self.start_node(node.name)
        except ClusterError:
            return False
        return wait_for(self.is_up, _RESTART_S, poll_s=_POLL_S)

    def is_current(self, ports: Ports) -> bool:
        """Tell whether the cluster was made from the parts and settings of this checkout."""
        made = self._config_file.read_text() if self._config_file.exists() else ""
        return made == self._config(ports)

    def create(self, ports: Ports) -> None:
        """Make the cluster. What is left of an earlier one must be gone."""
        self.layout.inbox.mkdir(exist_ok=True)
        self._config_file.write_text(self._config(ports))
        self.run.run(
            *(self.programs / "kind", "create", "cluster", "--config", self._config_file),
            *("--kubeconfig", self.layout.kubeconfig),
            timeout_s=_CREATE_S,
        )

    @property
    def _config_file(self) -> Path:
        return self.layout.state / "kind.yaml"

    def _config(self, ports: Ports) -> str:
        return kind_config(self.layout.cluster, self.engine.image, ports, self.layout.inbox)

    def delete(self) -> None:
        """Remove the cluster, half-made ones too; none is fine."""
        self.run.run(
            *(self.programs / "kind", "delete", "cluster", "--name", self.layout.cluster),
            *("--kubeconfig", self.layout.kubeconfig),
            timeout_s=_DELETE_S,
        )

    def load(self, archive: Path) -> tuple[str, ...]:
        """Load an image archive on every running node that does not have it; return those nodes.

        Raises:
            ValueError: the file is no image archive.
        """
        images = image_ids(archive)
        nodes = [
            node.name
            for node in self.nodes()
            if node.running and not images.items() <= self._images(node.name).items()
        ]
        if nodes:
            # Read from a mounted folder: through `docker exec` it takes more than twice as long.
            with _linked(archive, self.layout.inbox) as name, ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: self._import(node, name), nodes))
        return tuple(nodes)

    def _images(self, node: str) -> dict[str, str]:
        listed = self.run.output("docker", "exec", node, "crictl", "images", "--output", "json")
        return {
            name: image["id"]
            for image in json.loads(listed)["images"]
            for name in image["repoTags"] or []
        }

    def _import(self, node: str, name: str) -> None:
        self.run.run(
            *("docker", "exec", node, "ctr", "--namespace=k8s.io", "images", "import"),
            *("--all-platforms", "--snapshotter=overlayfs", f"{_INBOX}/{name}"),
            timeout_s=_LOAD_S,
        )

    def stop_node(self, node: str) -> None:
        """Stop a node as a machine that loses its power stops."""
        self.run.run("docker", "kill", node)

    def start_node(self, node: str) -> None:
        """Start a stopped node and wait until it is ready.

        Raises:
            ClusterError: it was not ready in time.
        """
        began = datetime.now(UTC).replace(microsecond=0)
        self.run.run("docker", "start", node)
        if not wait_for(lambda: self._is_ready_since(node, began), _RESTART_S, poll_s=_POLL_S):
            raise ClusterError(f"{node} is not ready after {_RESTART_S:.0f} s; see {self.log}")

    def _is_ready_since(self, node: str, began: datetime) -> bool:
        try:
            shown = self.run.output(self.kubectl, "get", "node", node, "-o", "json", timeout_s=10)
        except ClusterError:  # the API starts too
            return False
        return is_ready_since(shown, began)

    def worker(self, number: int) -> str:
        """Return the name of worker 1, 2, ....

        Raises:
            ClusterError: there is no such worker.
        """
        name = f"{self.layout.cluster}-worker{'' if number == 1 else number}"
        if name not in {node.name for node in self.nodes()}:
            raise ClusterError(f"there is no worker {number}: the cluster has 1 to {WORKERS}")
        return name

    def export_logs(self, folder: Path) -> None:
        """Write the logs of nodes, kubelets, containerd and pods into a folder."""
        # It fails for a node that does not run, after it has written what the others have.
        self.run.succeeds(
            *(self.programs / "kind", "export", "logs", folder),
            *("--name", self.layout.cluster),
            timeout_s=_LOAD_S,
        )
        for what in ("nodes", "pods", "events"):
            listed = self.run.output(self.kubectl, "get", what, "--all-namespaces", "-o", "wide")
            (folder / f"{what}.txt").write_text(listed)


@contextmanager
def _linked(archive: Path, inbox: Path) -> Iterator[str]:
    """Give an archive a name in the inbox for a while, without copying it where that can be."""
    name = f"{os.getpid()}-{threading.get_ident()}.tar"
    place = inbox / name
    try:
        place.hardlink_to(archive.resolve())
    except OSError:  # another file system
        shutil.copyfile(archive, place)
    try:
        yield name
    finally:
        place.unlink()


def parse_nodes(listed: str) -> tuple[Node, ...]:
    """Parse lines of ``NAME STATE`` as Docker prints them; the control plane comes first."""
    nodes = [
        Node(name, state == "running")
        for name, state in (line.split(maxsplit=1) for line in listed.splitlines() if line)
    ]
    return tuple(sorted(nodes, key=lambda node: ("control-plane" not in node.name, node.name)))


def is_ready_since(node: str, began: datetime) -> bool:
    """Tell whether a node's own kubelet has said since a time that it is ready.

    For some 40 s a node that was stopped still counts as ready: only its word after that time
    means something.

    Args:
        node: what ``kubectl get node NAME -o json`` prints.
        began: in whole seconds, as the API's times are.
    """
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= began
        for condition in json.loads(node).get("status", {}).get("conditions", [])
    )


def describe_pods(raw: str) -> tuple[int, int]:
    """Return how many pods of a ``kubectl get pods -o json`` are ready, and how many there are."""
    items = json.loads(raw)["items"]
    ready = [
        pod
        for pod in items
        for condition in pod.get("status", {}).get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    return len(ready), len(items)
