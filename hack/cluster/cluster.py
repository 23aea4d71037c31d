"""The verbs: what it takes to bring a cluster up, look at it, and take it down."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import addons, host, state
from hack.cluster.debian import DEBIAN_PARTS, ENGINE_PACKAGES, ensure_packages
from hack.cluster.engine import Engine, PrivateEngine, SystemEngine, choose, find
from hack.cluster.gotools import API_TOOLS, GO_TOOLS
from hack.cluster.kind import Kind, describe_pods
from hack.cluster.nodeimage import NODE_PARTS
from hack.cluster.parts import Store
from hack.cluster.process import ClusterError, Runner
from hack.images.build import ARCHIVE, BASE_PART, IMAGES, with_buildah, with_docker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hack.cluster.layout import Layout
    from hack.cluster.progress import Progress

# With a registry only the programs on this side of the cluster are built: kubectl and Helm are for
# whoever uses it.
_CLIENT_PARTS = ("kube-api", "kind", "helm")
_PRIVATE_PARTS = (*_CLIENT_PARTS, "engine", "lite", "containerd", "node-image")


def store(layout: Layout) -> Store:
    """Return the store of all parts."""
    return Store(layout.parts, (*(tool.part() for tool in GO_TOOLS), *DEBIAN_PARTS, *NODE_PARTS))


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster, up or not."""

    layout: Layout
    progress: Progress

    @property
    def _run(self) -> Runner:
        return Runner(self.layout.logs / "cluster.log")

    @property
    def _store(self) -> Store:
        return store(self.layout)

    def build(self) -> None:
        """Build everything that this machine's kind of cluster needs, and start nothing."""
        self._build(self._choose_engine())

    def tools(self) -> Path:
        """Build what tests against the API alone need; return the folder of the programs."""
        self._store.build(API_TOOLS, self.progress)
        return self._link_programs()

    def up(self) -> None:
        """Make the cluster, or mend it, until all of it is ready.

        Raises:
            ClusterError: a stage failed; the next run goes on where this one stopped.
        """
        began = time.monotonic()
        with self._locked():
            engine = self._choose_engine()
            self._build(engine)
            with self.progress.timed("Docker engine"):
                ports = engine.start()
            kind = self._kind(engine)
            with self.progress.timed("cluster of three nodes"):
                if not (kind.is_current(ports) and (kind.is_up() or kind.revive())):
                    kind.delete()
                    kind.create(ports)
            with self.progress.timed("Gateway API, gateway and Prometheus"):
                addons.apply_all(kind.kubectl, kind.run)
            with self.progress.timed("everything ready"):
                addons.wait_ready(kind.kubectl, kind.run)
        self.progress.say(f"The cluster is ready after {time.monotonic() - began:.0f} s.")
        self.progress.say(self.addresses())

    def down(self, *, purge: bool) -> None:
        """Remove the cluster and what it changed on the machine.

        Args:
            purge: also what makes the next start faster, and the logs.

        Raises:
            ClusterError: something could not be removed.
        """
        with self._locked():
            engine = self._find_engine()
            if engine.is_running() and self._kind(engine).nodes():
                with self.progress.timed("remove the nodes"):
                    self._kind(engine).delete()
            with self.progress.timed("stop the engine"):
                engine.stop()
            if not self._others_up():
                for key, (before, now) in host.restore(self.layout.host_state).items():
                    self.progress.say(f"left alone: {key} was {before!r} and is {now!r}")
            self.layout.kubeconfig.unlink(missing_ok=True)
            if purge:
                shutil.rmtree(self.layout.state)
        if left := self.leftovers():
            raise ClusterError("left behind:\n" + "\n".join(left))

    def leftovers(self) -> list[str]:
        """Return what a cluster that is down has left on the machine, one line each."""
        private = PrivateEngine(self.layout, self._store, self._run)
        left = [
            f"process {pid}: {line[:120]}"
            for pid, line in host.processes_naming(str(self.layout.engine_data))
        ]
        left += [f"mount {point}" for point in host.mounts_below(self.layout.state)]
        left += [f"control group {path}" for path in host.cgroup_folders(private.cgroup)]
        if self.layout.host_state.exists() and not self._others_up():
            before = json.loads(self.layout.host_state.read_text())
            left += [
                f"setting {key}: was {was!r}, is {now!r}"
                for key, (was, now) in host.changed(before, host.read_sysctls()).items()
                if key in host.RESTORED
            ]
        if self.layout.kubeconfig.exists():
            left.append(f"file {self.layout.kubeconfig}")
        return left

    def status(self) -> bool:
        """Print how the cluster is; return whether it is whole."""
        engine = self._find_engine()
        kind = self._kind(engine)
        nodes = kind.nodes() if engine.is_running() else ()
        if not nodes:
            self.progress.say("The cluster is down.")
            return False
        for node in nodes:
            self.progress.say(f"{node.name}: {'running' if node.running else 'stopped'}")
        if not kind.is_up():
            self.progress.say("The cluster is not whole: `up` mends it.")
            return False
        ready, pods = describe_pods(
            kind.run.output(kind.kubectl, "get", "pods", "-A", "-o", "json")
        )
        self.progress.say(f"{ready} of {pods} pods are ready.")
        self.progress.say(self.addresses())
        return True

    def addresses(self) -> str:
        """Return where the cluster can be reached, for people to read."""
        known = state.load(self.layout.state_file)
        lines = [f"Kubernetes  export KUBECONFIG={self.layout.kubeconfig}"]
        if known:
            lines += [
                f"Gateway     http://127.0.0.1:{known.ports.gateway}",
                f"Prometheus  http://127.0.0.1:{known.ports.prometheus}",
            ]
        return "\n".join(lines)

    def load(self, image: str) -> None:
        """Load an image on all nodes: an archive, one of the project's, or one that Docker has.

        Raises:
            ClusterError: it is none of these.
        """
        archive = Path(image)
        own = image.removeprefix("localhost/").removesuffix(":dev")
        if archive.is_file():
            self._load(self.running(), archive.name, archive)
        elif own in {known.name for known in IMAGES}:
            self.images([own])
        else:
            self._load_from_engine(image)

    def _load_from_engine(self, reference: str) -> None:
        kind = self.running()
        if not isinstance(kind.engine, SystemEngine):
            raise ClusterError(
                f"{reference} is neither a file nor an image of this project, and the cluster's "
                "private engine has no other: write the image to a file (`docker save --output "
                "FILE`, `skopeo copy ... docker-archive:FILE:NAME`) and load that"
            )
        # Beside the folder that nodes see, so that it is linked into it and not copied.
        with tempfile.TemporaryDirectory(dir=self.layout.state) as scratch:
            archive = Path(scratch) / "image.tar"
            kind.engine.save_image(reference, archive)
            self._load(kind, reference, archive)

    def images(self, names: Sequence[str]) -> None:
        """Build the project's images, or some of them, and load them if the cluster is up.

        Raises:
            ClusterError: a name is unknown, or a build failed.
        """
        if unknown := set(names) - {image.name for image in IMAGES}:
            raise ClusterError(f"unknown images: {', '.join(sorted(unknown))}")
        images = [image for image in IMAGES if not names or image.name in names]
        engine = self._choose_engine()
        try:
            if isinstance(engine, PrivateEngine):
                own = (BASE_PART, *(with_buildah(image, self.layout.buildah) for image in images))
            else:
                own = tuple(with_docker(image) for image in images)
        except FileNotFoundError as error:
            raise ClusterError(str(error)) from error
        built = Store(self.layout.parts, (*self._store.parts, *own))
        built.build([image.part for image in images], self.progress)
        kind = self._kind(engine)
        if not (engine.is_running() and kind.nodes()):
            self.progress.say("The cluster is down: the images are built, and not loaded.")
            return
        for image in images:
            self._load(kind, image.name, built.path(image.part) / ARCHIVE)

    def _load(self, kind: Kind, name: str, archive: Path) -> None:
        with self.progress.timed(f"load {name}"):
            kind.load(archive)

    def node(self, action: str, number: int) -> None:
        """Stop or start a worker."""
        kind = self.running()
        name = kind.worker(number)
        with self.progress.timed(f"{action} {name}"):
            (kind.stop_node if action == "stop" else kind.start_node)(name)

    def logs(self, folder: Path | None) -> Path:
        """Collect logs into a folder, by default a new one in the cache; return it."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = folder or self.layout.state / "collected" / stamp
        folder.mkdir(parents=True, exist_ok=True)
        kind = self.running()
        with self.progress.timed("collect logs"):
            kind.export_logs(folder)
            shutil.copytree(self.layout.logs, folder / "tool", dirs_exist_ok=True)
        return folder

    def shell(self) -> int:
        """Run a shell that sees the cluster from inside its network; return its exit code."""
        engine = self._find_engine()
        enter: Sequence[str] = ()
        if isinstance(engine, PrivateEngine):
            namespace = engine.namespace
            if namespace is None:
                raise ClusterError("the cluster is down")
            # Not `ip netns exec`: that mounts a new /sys, which hides the control groups.
            enter = ("nsenter", f"--net={namespace}")
        env = {**os.environ, **engine.env, "KUBECONFIG": str(self.layout.kubeconfig)}
        env["PATH"] = f"{self._link_programs()}:{env['PATH']}"
        return subprocess.run(
            (*enter, os.environ.get("SHELL", "/bin/sh")), env=env, check=False
        ).returncode

    def running(self) -> Kind:
        """Return the cluster that is up.

        Raises:
            ClusterError: it is not.
        """
        engine = self._find_engine()
        kind = self._kind(engine)
        # A user's own engine runs without a cluster too.
        if not (engine.is_running() and kind.nodes()):
            raise ClusterError("the cluster is down: `up` starts it")
        return kind

    def _find_engine(self) -> Engine:
        return find(self.layout, self._store, self._run)

    def _choose_engine(self) -> Engine:
        return choose(self.layout, self._store, self._run, self.progress)

    def _build(self, engine: Engine) -> None:
        private = isinstance(engine, PrivateEngine)
        if private:
            ensure_packages(ENGINE_PACKAGES, self._run)
        self._store.build(_PRIVATE_PARTS if private else _CLIENT_PARTS, self.progress)

    def _kind(self, engine: Engine) -> Kind:
        return Kind(self.layout, engine, self._link_programs(), self.layout.logs / "kind.log")

    def _link_programs(self) -> Path:
        """Point the folder for PATH at the current binaries."""
        self.layout.bin.mkdir(parents=True, exist_ok=True)
        parts = self._store
        for name in (*API_TOOLS, "kind"):
            if not parts.is_built(name):
                continue
            for program in parts.path(name).iterdir():
                link = self.layout.bin / program.name
                if not link.is_symlink() or link.readlink() != program:
                    fresh = link.with_name(f".{program.name}.{os.getpid()}")
                    fresh.symlink_to(program)
                    fresh.rename(link)
        return self.layout.bin

    def _others_up(self) -> bool:
        others = {self.layout.cache / "cluster", *self.layout.cache.glob("cluster-*")}
        others.discard(self.layout.state)
        known = [state.load(folder / self.layout.state_file.name) for folder in others]
        return any(other and other.sandbox and other.sandbox.is_alive() for other in known)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two runs from making or removing one cluster at once."""
        self.layout.state.mkdir(parents=True, exist_ok=True)
        with (self.layout.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress.say("Another run is at work on this cluster: waiting for it.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
