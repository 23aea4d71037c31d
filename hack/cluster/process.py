"""Running other programs: output to a log, errors that say which."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

_TAIL_LINES = 12


class ClusterError(Exception):
    """Something the user has to know about: its text is the whole message."""


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log, or nothing where there is none."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def wait_for(condition: Callable[[], bool], timeout_s: float, *, poll_s: float = 0.1) -> bool:
    """Wait until a condition holds; tell whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs programs whose output goes to one log.

    Attributes:
        log: the file to append to.
        env: variables beside the inherited ones.
    """

    log: Path
    env: Mapping[str, str] | None = None

    def run(
        self,
        *argv: str | Path,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Run a program to its end.

        Raises:
            ClusterError: it failed or took too long; the message has the end of its output.
        """
        with self._log(argv, timeout_s) as log:
            log.write(f"$ {_shown(argv)}\n".encode())
            log.flush()
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=self._environ(),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        self._check(argv, done.returncode)

    def output(
        self, *argv: str | Path, cwd: Path | None = None, timeout_s: float | None = None
    ) -> str:
        """Run a program and return what it printed; its errors go to the log.

        Raises:
            ClusterError: it failed or took too long.
        """
        with self._log(argv, timeout_s) as log:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=timeout_s,
                check=False,
            )
        self._check(argv, done.returncode)
        return done.stdout.decode()

    def succeeds(self, *argv: str | Path, cwd: Path | None = None, timeout_s: float = 30.0) -> bool:
        """Tell whether a program succeeds."""
        try:
            self.run(*argv, cwd=cwd, timeout_s=timeout_s)
        except ClusterError:
            return False
        return True

    @contextmanager
    def _log(self, argv: Sequence[str | Path], timeout_s: float | None) -> Iterator[IO[bytes]]:
        """The log to append to; a program that is missing or too slow becomes a clear error."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                yield log
        except FileNotFoundError:
            raise ClusterError(f"{argv[0]} is not installed") from None
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"{argv[0]} took more than {timeout_s:.0f} s; see {self.log}"
            ) from None

    def _check(self, argv: Sequence[str | Path], code: int) -> None:
        if code:
            what = f"{_shown(argv[:3])} ... failed ({code}); see {self.log}"
            raise ClusterError(f"{what}\n{tail(self.log)}")

    def _environ(self) -> dict[str, str]:
        return {**os.environ, **(self.env or {})}


def _shown(argv: Sequence[str | Path]) -> str:
    return " ".join(str(word) for word in argv)
