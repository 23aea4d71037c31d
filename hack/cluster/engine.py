"""The Docker engine under the cluster: the user's own, or a private one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hack.cluster import host, sandbox
from hack.cluster.debian import ENGINE_PACKAGES, ensure_packages
from hack.cluster.gotools import kubernetes_version
from hack.cluster.nodeimage import node_image
from hack.cluster.process import ClusterError, Runner, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hack.cluster.layout import Layout
    from hack.cluster.parts import Store

_START_S = 60.0
_STOP_S = 60.0
_PULL_S = 600.0

# Preferred, so that they are the same each time; where one is taken, any other will do.
API_PORT = 16443
GATEWAY_PORT = 16080
PROMETHEUS_PORT = 16090


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on the machine's loopback; the private engine's namespace uses the same numbers."""

    api: int
    gateway: int
    prometheus: int


class Engine(Protocol):
    """A Docker engine that kind can use."""

    env: Mapping[str, str]
    image: str

    def start(self) -> Ports:
        """Make sure that it runs and has the node image; return the ports to publish on."""

    def stop(self) -> None:
        """End it, if it is ours."""

    def is_running(self) -> bool:
        """Tell whether it answers."""


@dataclass(frozen=True, slots=True)
class SystemEngine:
    """The Docker engine that the user has, with upstream's node image."""

    layout: Layout
    run: Runner

    @property
    def env(self) -> Mapping[str, str]:
        """Nothing beside what the user's own environment says."""
        return {}

    @property
    def image(self) -> str:
        """Upstream's image of the pinned Kubernetes."""
        return f"docker.io/kindest/node:{kubernetes_version()}"

    def is_running(self) -> bool:
        """Tell whether there is an engine at all."""
        return bool(shutil.which("docker")) and self.run.succeeds("docker", "info")

    def is_usable(self) -> bool:
        """Tell whether the engine runs and has, or can get, the node image."""
        if not self.is_running():
            return False
        return self.run.succeeds("docker", "image", "inspect", self.image) or self.run.succeeds(
            "docker", "pull", "--quiet", self.image, timeout_s=_PULL_S
        )

    def start(self) -> Ports:
        """Choose ports: the engine itself runs already."""
        return load_ports(self.layout) or choose_ports()

    def stop(self) -> None:
        """Leave the user's engine alone."""


@dataclass(frozen=True, slots=True)
class PrivateEngine:
    """Debian's Docker in namespaces without an uplink, with a node image built here."""

    layout: Layout
    store: Store
    run: Runner

    @property
    def env(self) -> Mapping[str, str]:
        """What makes ``docker`` and ``kind`` use this engine."""
        programs = self.store.path("engine") / "root" / "usr" / "bin"
        return {
            "DOCKER_HOST": f"unix://{self.layout.engine_socket}",
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    @property
    def image(self) -> str:
        """The built image, named after what it is built from."""
        return node_image(self.store.key("node-image"))

    @property
    def cgroup(self) -> str:
        """The parent of all control groups of this cluster."""
        return f"kind-{self.layout.cluster}"

    def is_running(self) -> bool:
        """Tell whether the sandbox is alive and the engine in it answers."""
        return self._sandbox() is not None and self._docker().succeeds("docker", "info")

    def start(self) -> Ports:
        """Start the engine, or find it running, and load the node image.

        Raises:
            ClusterError: it does not start.
        """
        ports = load_ports(self.layout)
        if ports is None or not self.is_running():
            self.stop()
            ensure_packages(ENGINE_PACKAGES, self.run)
            host.record(self.layout.host_state)
            ports = choose_ports()
            self._start(ports)
        if not self._docker().succeeds("docker", "image", "inspect", self.image):
            self._load_image()
        return ports

    def stop(self) -> None:
        """End the sandbox with all that runs in it, and remove what it left behind."""
        running = self._sandbox()
        if running is not None:
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGTERM)
            if not _wait_for(lambda: not running.is_alive(), _STOP_S):
                with suppress(ProcessLookupError):
                    os.kill(running.pid, signal.SIGKILL)
                _wait_for(lambda: not running.is_alive(), _STOP_S)
        self.layout.engine_socket.unlink(missing_ok=True)
        self.layout.sandbox_state.unlink(missing_ok=True)
        # An old network would be brought up again without its bridge, and push the new one's
        # addresses into the next subnet.
        shutil.rmtree(self.layout.engine_data / "network", ignore_errors=True)
        _wait_for(lambda: not _has_processes(self.cgroup), _STOP_S)
        host.remove_cgroups(self.cgroup)

    def namespace(self) -> Path | None:
        """Return the network namespace that the cluster is in, for ``nsenter --net``."""
        running = self._sandbox()
        return Path(f"/proc/{running.pid}/ns/net") if running else None

    def _docker(self) -> Runner:
        return Runner(self.run.log, self.env)

    def _sandbox(self) -> SandboxState | None:
        state = load_sandbox(self.layout)
        return state if state is not None and state.is_alive() else None

    def _start(self, ports: Ports) -> None:
        engine = self.store.path("engine") / "root" / "usr"
        lite, containerd = self.store.path("lite"), self.store.path("containerd")
        log = self.layout.logs / "dockerd.log"
        self.layout.engine_data.mkdir(parents=True, exist_ok=True)
        pid = sandbox.start(
            ports=[ports.api, ports.gateway, ports.prometheus],
            engine=[
                engine / "sbin" / "dockerd",
                *("--host", f"unix://{self.layout.engine_socket}"),
                *("--data-root", self.layout.engine_data),
                *("--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"),
                *("--cgroup-parent", f"/{self.cgroup}"),
                *("--exec-opt", "native.cgroupdriver=cgroupfs"),
                *("--storage-driver", "overlay2"),
                *("--add-runtime", f"lite={lite / 'runc-lite'}", "--default-runtime", "lite"),
            ],
            log=log,
            env={
                "PATH": f"{engine / 'sbin'}:{engine / 'bin'}:{containerd}:{os.environ['PATH']}",
                "RUNC": str(engine / "sbin" / "runc"),
            },
        )
        save_sandbox(self.layout, SandboxState(pid, _start_time(pid), ports))
        _wait_for(lambda: self._sandbox() is None or self.is_running(), _START_S)
        if not self.is_running():
            raise ClusterError(f"the private Docker engine did not start; see {log}\n{tail(log)}")

    def _load_image(self) -> None:
        docker = self._docker()
        archive = self.store.path("node-image") / "node.tar"
        docker.run("docker", "load", "--quiet", "--input", archive)
        docker.run("docker", "tag", "localhost/kind-node:unnamed", self.image)
        docker.run("docker", "rmi", "localhost/kind-node:unnamed")
        # Images of earlier builds are of no use to anyone.
        listed = docker.output("docker", "images", "--format", "{{.Repository}}:{{.Tag}}")
        for image in listed.split():
            if image != self.image:
                docker.succeeds("docker", "rmi", image)


@dataclass(frozen=True, slots=True)
class SandboxState:
    """A sandbox's process, told from a later one of the same id by when it started.

    Attributes:
        start_time: in clock ticks since the machine's start, as in ``/proc/PID/stat``.
    """

    pid: int
    start_time: int
    ports: Ports

    def is_alive(self) -> bool:
        """Tell whether the very same process still runs."""
        return _start_time(self.pid) == self.start_time


def load_sandbox(layout: Layout) -> SandboxState | None:
    """Read what was written when the sandbox was started; a broken file counts as none."""
    try:
        raw = json.loads(layout.sandbox_state.read_text())
        return SandboxState(raw["pid"], raw["start_time"], Ports(**raw["ports"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_sandbox(layout: Layout, state: SandboxState) -> None:
    """Write down a sandbox, in one step."""
    partial = layout.sandbox_state.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(state)))
    partial.rename(layout.sandbox_state)


def load_ports(layout: Layout) -> Ports | None:
    """Return the ports of the cluster that is up."""
    state = load_sandbox(layout)
    return state.ports if state else None


def choose_ports() -> Ports:
    """Choose free ports on the loopback, the preferred ones where they are free."""
    return Ports(_free(API_PORT), _free(GATEWAY_PORT), _free(PROMETHEUS_PORT))


def _free(preferred: int) -> int:
    for port in (preferred, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ClusterError("no free port on 127.0.0.1")


def start_time_of(stat: str) -> int:
    """Return field 22 of ``/proc/PID/stat``; the name in field 2 may hold anything."""
    return int(stat.rpartition(")")[2].split()[19])


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # A zombie has ended: only its parent has not looked yet.
    return None if stat.rpartition(")")[2].split()[0] == "Z" else start_time_of(stat)


def _has_processes(cgroup: str) -> bool:
    for top in host.cgroup_folders(cgroup):
        for procs in top.rglob("cgroup.procs"):
            with suppress(OSError):
                if procs.read_text().strip():
                    return True
    return False


def _wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def choose(layout: Layout, store: Store, run: Runner) -> Engine:
    """Return the user's engine where it can have the node image, else a private one."""
    if load_sandbox(layout) is not None:
        return PrivateEngine(layout, store, run)
    system = SystemEngine(layout, run)
    return system if system.is_usable() else PrivateEngine(layout, store, run)
