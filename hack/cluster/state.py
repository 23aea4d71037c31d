"""What is remembered of a cluster while it is up."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from hack.cluster.process import ClusterError


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on the machine's loopback; a private engine's namespace uses the same numbers."""

    api: int
    gateway: int
    prometheus: int


# The same each time, unless something else has one of them.
PREFERRED = Ports(api=16443, gateway=16080, prometheus=16090)


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from a later one of the same id by when it started.

    Attributes:
        start_time: in clock ticks since the machine's start, as in ``/proc/PID/stat``.
    """

    pid: int
    start_time: int

    def is_alive(self) -> bool:
        """Tell whether the very same process still runs."""
        return find_process(self.pid) == self


@dataclass(frozen=True, slots=True)
class State:
    """A cluster that was started, and not taken down since.

    Attributes:
        sandbox: the process that holds the private engine; none with the user's own engine.
    """

    ports: Ports
    sandbox: Process | None

    def save(self, path: Path) -> None:
        """Write it down, in one step."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.rename(path)


def load(path: Path) -> State | None:
    """Read what ``State.save`` wrote; a broken file counts as none."""
    try:
        raw = json.loads(path.read_text())
        sandbox = None if raw["sandbox"] is None else Process(**raw["sandbox"])
        return State(Ports(**raw["ports"]), sandbox)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_process(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """Return the process that has an id now; a zombie, which has ended, is none."""
    try:
        # The name in field 2 may hold anything, spaces and brackets too.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else Process(pid, int(fields[19]))


def choose_ports(preferred: Ports = PREFERRED) -> Ports:
    """Choose free ports on the loopback, the preferred ones where they are free.

    Raises:
        ClusterError: there is no free port at all.
    """
    return Ports(_free(preferred.api), _free(preferred.gateway), _free(preferred.prometheus))


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
