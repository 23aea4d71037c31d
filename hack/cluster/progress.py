"""Telling the user what goes on, and how long it takes."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REMIND_S = 30.0


class Progress:
    """Prints a line when a stage begins and when it ends, and in between that it still runs.

    On a terminal that is a line which moves, until `close`; elsewhere it is said every half minute.

    Args:
        console: where to; standard error by default, as standard output is for what a verb was
            asked for, such as a path.
        clock: seconds of a monotonic clock.
        remind_s: time between two lines about stages that run, off a terminal.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        remind_s: float = _REMIND_S,
    ) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = clock
        self._remind_s = remind_s
        self._running: dict[str, float] = {}
        self._status = self._console.status(_Live(self.running))
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reminder: threading.Thread | None = None

    def running(self) -> str:
        """Return the stages that run now, each with how long it has; empty if there is none."""
        # NB: no lock: it is drawn by a thread of the console's, which whoever holds the lock joins
        now = self._clock()
        return ", ".join(
            f"{name} ({now - began:.0f} s)" for name, began in self._running.copy().items()
        )

    def stage(self, name: str) -> None:
        """Say that a stage began."""
        with self._lock:
            self._running[name] = self._clock()
            if not self._console.is_terminal:
                self._print(f"  ...  {name}")
            self._refresh()

    def done(self, name: str, seconds: float) -> None:
        """Say that a stage ended well."""
        with self._lock:
            self._running.pop(name, None)
            self._print(Text.assemble((f"{seconds:5.1f} s", "green"), f"  {name}"))
            self._refresh()

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self._print(text)

    def close(self) -> None:
        """Stop telling what runs: nothing does, also after a stage that ended in an error."""
        self._closed.set()
        with self._lock:
            self._running.clear()
            self._refresh()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Report the block as a stage."""
        began = self._clock()
        self.stage(name)
        try:
            yield
        except BaseException:
            with self._lock:
                self._running.pop(name, None)
                self._refresh()
            raise
        self.done(name, self._clock() - began)

    def _print(self, text: str | Text) -> None:
        self._console.print(text, markup=False)

    def _refresh(self) -> None:
        if not self._console.is_terminal:
            self._start_reminder()
        elif self._running:
            self._status.start()
        else:
            self._status.stop()

    def _start_reminder(self) -> None:
        if self._running and self._reminder is None:
            self._reminder = threading.Thread(target=self._remind, name="progress", daemon=True)
            self._reminder.start()

    def _remind(self) -> None:
        while not self._closed.wait(self._remind_s):
            with self._lock:
                if running := self.running():
                    self._print(f"  ...  still at {running}")


@dataclass(frozen=True, slots=True)
class _Live:
    """A text that is asked for anew each time it is drawn."""

    text: Callable[[], str]

    def __rich__(self) -> Text:
        return Text(self.text())
