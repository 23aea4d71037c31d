"""The Docker engine under the cluster: the user's own, or a private one."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hack.cluster import host, sandbox, state
from hack.cluster.debian import ENGINE_PACKAGES, ensure_packages
from hack.cluster.nodeimage import UNNAMED, node_image
from hack.cluster.process import ClusterError, Runner, tail, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.cluster.layout import Layout
    from hack.cluster.parts import Store
    from hack.cluster.progress import Progress

# The image for Kubernetes 1.36 in the release notes of the kind that go/kind pins. A tag alone may
# come to mean a build for another kind.
UPSTREAM_NODE_IMAGE = (
    "docker.io/kindest/node:v1.36.4"
    "@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
)

_START_S = 60.0
_STOP_S = 60.0
_KILL_S = 10.0
_PULL_S = 600.0
_ASK_S = 30.0
_SAVE_S = 300.0


class Engine(Protocol):
    """A Docker engine that kind can use."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables with which ``docker`` and ``kind`` find it."""

    @property
    def image(self) -> str:
        """The node image's name in it."""

    def start(self) -> state.Ports:
        """Make sure that it runs and has the node image; return the ports to publish on."""

    def stop(self) -> None:
        """End it, if it is ours, and forget the cluster."""

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
        """Upstream's image, made for the pinned kind."""
        return UPSTREAM_NODE_IMAGE

    def is_running(self) -> bool:
        """Tell whether there is an engine at all."""
        return bool(shutil.which("docker")) and self.run.succeeds("docker", "info")

    def has_image(self) -> bool:
        """Tell whether the engine runs and has the node image."""
        return self.is_running() and self.run.succeeds("docker", "image", "inspect", self.image)

    def pull_image(self) -> bool:
        """Get the node image; tell whether a registry had it. May take minutes."""
        return self.run.succeeds("docker", "pull", "--quiet", self.image, timeout_s=_PULL_S)

    def save_image(self, reference: str, archive: Path) -> None:
        """Write an image that the engine has into an archive.

        Raises:
            ClusterError: it does not have it.
        """
        try:
            platform = self.run.output(
                *("docker", "image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", reference),
                timeout_s=_ASK_S,
            ).strip()
        except ClusterError as error:
            raise ClusterError(
                f"{reference} is neither a file, nor an image of this project, nor one that Docker "
                f"has: `docker pull {reference}` gets it from a registry"
            ) from error
        save = ("docker", "save", "--output", archive)
        # Engines with containerd's store otherwise name platforms that they have not pulled, which
        # no node can import (kubernetes-sigs/kind#3795). Those before 28 do not know the option.
        if not self.run.succeeds(*save, "--platform", platform, reference, timeout_s=_SAVE_S):
            self.run.run(*save, reference, timeout_s=_SAVE_S)

    def start(self) -> state.Ports:
        """Choose ports: the engine itself runs already."""
        known = state.load(self.layout.state_file)
        ports = known.ports if known else state.choose_ports()
        state.State(ports, sandbox=None).save(self.layout.state_file)
        return ports

    def stop(self) -> None:
        """Leave the user's engine alone."""
        self.layout.state_file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class PrivateEngine:
    """Debian's Docker in namespaces without an uplink, with a node image built here."""

    layout: Layout
    store: Store
    run: Runner

    @property
    def env(self) -> Mapping[str, str]:
        """The private socket, and the client of the engine's own version."""
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

    @property
    def namespace(self) -> Path | None:
        """The network namespace that the cluster is in, for ``nsenter --net``."""
        running = self._sandbox()
        return Path(f"/proc/{running.pid}/ns/net") if running else None

    def is_running(self) -> bool:
        """Tell whether the sandbox is alive and the engine in it answers."""
        return self._sandbox() is not None and self._docker.succeeds("docker", "info")

    def start(self) -> state.Ports:
        """Start the engine, or find it running, and load the node image.

        Raises:
            ClusterError: it does not start.
        """
        known = state.load(self.layout.state_file)
        if known and self.is_running():
            ports = known.ports
        else:
            self.stop()
            ensure_packages(ENGINE_PACKAGES, self.run)
            host.record(self.layout.host_state)
            host.raise_limits()
            # Those that it had: somebody may have them in a shell's variable.
            ports = state.choose_ports(known.ports) if known else state.choose_ports()
            self._start(ports)
        if not self._docker.succeeds("docker", "image", "inspect", self.image):
            self._load_image()
        return ports

    def stop(self) -> None:
        """End the sandbox with all that runs in it, and remove what it left behind."""
        running = self._sandbox()
        if running is not None:
            _signal(running.pid, signal.SIGTERM)
            wait_for(lambda: not running.is_alive(), _STOP_S)
        # One that did not end in time, or that was started by a run that was killed before it
        # could write this down. The kernel ends what is in its namespaces.
        for pid, _ in host.processes_naming("hack.cluster.sandbox", str(self.layout.engine_data)):
            _signal(pid, signal.SIGKILL)
        empty = wait_for(lambda: not host.has_processes(self.cgroup), _KILL_S)
        self.layout.engine_socket.unlink(missing_ok=True)
        self.layout.state_file.unlink(missing_ok=True)
        # An old network would be brought up again without its bridge, and push the new one's
        # addresses into the next subnet.
        shutil.rmtree(self.layout.engine_data / "network", ignore_errors=True)
        # Those that still run are not ours: a cluster of this name that another cache knows.
        if empty:
            host.remove_cgroups(self.cgroup)

    @property
    def _docker(self) -> Runner:
        return Runner(self.run.log, self.env)

    def _sandbox(self) -> state.Process | None:
        known = state.load(self.layout.state_file)
        return known.sandbox if known and known.sandbox and known.sandbox.is_alive() else None

    def _start(self, ports: state.Ports) -> None:
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
        state.State(ports, state.find_process(pid)).save(self.layout.state_file)
        wait_for(lambda: self._sandbox() is None or self.is_running(), _START_S)
        if not self.is_running():
            raise ClusterError(f"the private Docker engine did not start; see {log}\n{tail(log)}")

    def _load_image(self) -> None:
        docker = self._docker
        archive = self.store.path("node-image") / "node.tar"
        docker.run("docker", "load", "--quiet", "--input", archive)
        docker.run("docker", "tag", UNNAMED, self.image)
        docker.run("docker", "rmi", UNNAMED)
        # Images of earlier builds are of no use to anyone.
        listed = docker.output("docker", "images", "--format", "{{.Repository}}:{{.Tag}}")
        for image in listed.split():
            if image != self.image:
                docker.succeeds("docker", "rmi", image)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def find(layout: Layout, store: Store, run: Runner) -> Engine:
    """Return the engine of the cluster that was started; with none started, the likeliest one.

    It asks no registry, so that a question about a cluster is answered at once.
    """
    known = state.load(layout.state_file)
    private = PrivateEngine(layout, store, run)
    system = SystemEngine(layout, run)
    if known is not None:
        return private if known.sandbox else system
    return system if system.has_image() else private


def choose(layout: Layout, store: Store, run: Runner, progress: Progress) -> Engine:
    """Return the engine of the cluster that was started, else the best for a new one.

    That is the user's engine where it can have the node image, and a private one otherwise.
    """
    found = find(layout, store, run)
    system = SystemEngine(layout, run)
    if state.load(layout.state_file) is not None or found == system or not system.is_running():
        return found
    with progress.timed("ask Docker's registry for the node image"):
        pulled = system.pull_image()
    return system if pulled else found
