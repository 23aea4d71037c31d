"""Telling the user what goes on, and how long it takes."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress:
    """Prints a line when a stage begins and when it ends; on a terminal also what runs now."""

    def __init__(self) -> None:
        # Standard output is for what a verb was asked for, such as a path.
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status = self._console.status("")
        self._running: dict[str, float] = {}
        self._lock = threading.Lock()

    def stage(self, name: str) -> None:
        """Say that a stage began."""
        with self._lock:
            self._running[name] = time.monotonic()
            if not self._console.is_terminal:
                self._console.print(f"  ...  {name}")
            self._refresh()

    def done(self, name: str, seconds: float) -> None:
        """Say that a stage ended well."""
        with self._lock:
            self._running.pop(name, None)
            self._console.print(f"[green]{seconds:5.1f} s[/green]  {name}")
            self._refresh()

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self._console.print(text, markup=False)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Report the block as a stage."""
        began = time.monotonic()
        self.stage(name)
        try:
            yield
        except BaseException:
            with self._lock:
                self._running.pop(name, None)
                self._refresh()
            raise
        self.done(name, time.monotonic() - began)

    def _refresh(self) -> None:
        if not self._console.is_terminal:
            return
        if self._running:
            self._status.update(", ".join(self._running))
            self._status.start()
        else:
            self._status.stop()
