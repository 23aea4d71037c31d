"""Built parts: each is kept under a key of what it is built from, and built once.

A part is made in a folder beside its final one and renamed when it is whole, so that a build that
was killed leaves nothing that looks finished; the next run goes on with the first missing part.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hack.cluster.process import ClusterError, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_KEY_LENGTH = 16


class Lane(StrEnum):
    """What a build is bound by. Parts of one lane are built one after another."""

    GO = "go"  # the compiler: uses all cores by itself
    DEBIAN = "debian"  # downloads and unpacking
    ASSEMBLY = "assembly"  # copying files into archives


@dataclass(frozen=True, slots=True)
class Build:
    """What a part's builder is given.

    Attributes:
        out: the empty folder to fill.
        needs: the folders of the parts it needs, by name.
        run: runs programs, with their output in the part's log.
    """

    out: Path
    needs: Mapping[str, Path]
    run: Runner


@dataclass(frozen=True, slots=True)
class Part:
    """Something built once and kept.

    Attributes:
        name: unique, and the beginning of its folder's name.
        recipe: every word outside of files that shapes the result.
        sources: files and folders whose content shapes the result.
        needs: names of other parts that it is made from.
        replaces: whether those that were built before are removed, because they are large and
            nothing runs from them.
    """

    name: str
    lane: Lane
    build: Callable[[Build], None]
    recipe: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    replaces: bool = False


class Reporter(Protocol):
    """Hears how a piece of work goes."""

    def stage(self, name: str) -> None:
        """Hear that a stage began."""

    def done(self, name: str, seconds: float) -> None:
        """Hear that a stage ended well."""


def content_hash(paths: Sequence[Path], *words: str) -> str:
    """Hash words, and files by name and content; a folder counts as all the files in it."""
    digest = hashlib.sha256(json.dumps(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(path.parent).as_posix()
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Store:
    """The parts of one project, in one folder.

    Attributes:
        root: the folder.
        parts: every part, each after those that it needs.
    """

    root: Path
    parts: tuple[Part, ...]
    _keys: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def part(self, name: str) -> Part:
        """Return the part of this name; KeyError if there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def key(self, name: str) -> str:
        """Return the hash of everything that the part is built from, its needs included."""
        if name not in self._keys:
            part = self.part(name)
            needs = [f"{need}={self.key(need)}" for need in part.needs]
            self._keys[name] = content_hash(part.sources, name, *part.recipe, *needs)[:_KEY_LENGTH]
        return self._keys[name]

    def path(self, name: str) -> Path:
        """Return the part's folder, whether or not it is built."""
        return self.root / f"{name}-{self.key(name)}"

    def is_built(self, name: str) -> bool:
        """Tell whether the part is there, whole."""
        return self.path(name).is_dir()

    def plan(self, targets: Sequence[str]) -> tuple[Part, ...]:
        """Return what is missing for these parts, each after those that it needs.

        A part that is there is not looked behind: what it was made from may be gone.
        """
        wanted: set[str] = set()

        def want(name: str) -> None:
            if name not in wanted and not self.is_built(name):
                for need in self.part(name).needs:
                    want(need)
                wanted.add(name)

        for target in targets:
            want(target)
        return tuple(part for part in self.parts if part.name in wanted)

    def build(self, targets: Sequence[str], reporter: Reporter) -> None:
        """Build what is missing for these parts, the lanes beside each other.

        Raises:
            ClusterError: a part could not be built. The other lanes finish the part they are at.
        """
        waiting = list(self.plan(targets))
        running: dict[Future[None], Part] = {}
        with ExitStack() as stack:
            lanes = {
                lane: stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=lane))
                for lane in Lane
            }
            while waiting or running:
                unfinished = {p.name for p in waiting} | {p.name for p in running.values()}
                for part in [p for p in waiting if unfinished.isdisjoint(p.needs)]:
                    waiting.remove(part)
                    running[lanes[part.lane].submit(self._make, part, reporter)] = part
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    part = running.pop(future)
                    if error := future.exception():
                        for other in running:
                            other.cancel()
                        raise ClusterError(f"building {part.name}: {error}") from error

    def _make(self, part: Part, reporter: Reporter) -> None:
        with _locked(self.root / f".{part.name}.lock"):
            if self.is_built(part.name):  # another process was faster
                return
            reporter.stage(f"build {part.name}")
            began = time.monotonic()
            final = self.path(part.name)
            partial = self.root / f".{part.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            log = self.root / "logs" / f"{part.name}.log"
            log.parent.mkdir(exist_ok=True)
            log.write_bytes(b"")
            part.build(Build(partial, {need: self.path(need) for need in part.needs}, Runner(log)))
            partial.rename(final)
            if part.replaces:
                for former in self.root.glob(f"{part.name}-*"):
                    if former != final and len(former.name) == len(final.name):
                        shutil.rmtree(former)
            reporter.done(f"build {part.name}", time.monotonic() - began)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
