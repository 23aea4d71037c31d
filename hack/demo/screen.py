"""The terminal: a live table on a TTY, one line for each change anywhere else."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hack.demo.history import History
from hack.demo.view import RevisionView, View, view

REFRESH_PER_SECOND = 4


class Screen:
    """Shows a run while it happens. Used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True)
            if console.is_terminal
            else None
        )
        self._awaited = ""
        self._deadline = 0.0
        self._last: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(
            f"[dim]{_clock(time.time())}[/dim] {text}", highlight=False, soft_wrap=True
        )

    def awaiting(self, what: str, timeout_s: float) -> None:
        """Tells what is awaited from now on, and for how long at most."""
        self._awaited = what
        self._deadline = time.time() + timeout_s
        if self._live is None:
            self.say(f"waiting for {what}, until {_clock(self._deadline)}")

    def update(self, history: History) -> None:
        """Shows the latest of `history`."""
        now = time.time()
        moment = view(history, now)
        if self._live is not None:
            self._live.update(self._render(moment, now))
            return
        lines = changes(moment)
        for line in lines:
            if line not in self._last:
                self.say(line)
        self._last = lines

    def _render(self, moment: View, now: float) -> RenderableType:
        lines = [Text(moment.state, style="bold")]
        lines += [Text(f"  {verdict}") for verdict in moment.verdicts]
        if moment.next_step_s is not None and moment.next_step_s > 0:
            lines.append(
                Text(f"next step in {moment.next_step_s:.0f} s if the metrics pass", style="cyan")
            )
        remaining_s = max(0.0, self._deadline - now)
        lines.append(
            Text(
                f"waiting for {self._awaited}, until {_clock(self._deadline)} "
                f"({remaining_s:.0f} s left)",
                style="dim",
            )
        )
        if moment.gateway_errors:
            lines.append(Text(f"{moment.gateway_errors} gateway errors", style="bold red"))
        return Group(_table(moment), *lines)


def changes(moment: View) -> tuple[str, ...]:
    """What a log has of a moment: only what changes seldom, so that each line is news."""
    lines = []
    for revision in moment.revisions:
        if revision.role or revision.percent:
            lines.append(f"{_name(revision)} {revision.role}: {_weight(revision)}{_pods(revision)}")
        if revision.errors:
            lines.append(f"{_name(revision)} has answered errors")
    lines.append(moment.state)
    lines += moment.verdicts
    if moment.gateway_errors:
        # not each of them: a lost node brings hundreds
        least = 1 << (moment.gateway_errors.bit_length() - 1)
        lines.append(f"{least} gateway errors or more")
    return tuple(lines)


def _table(moment: View) -> Table:
    table = Table(title_justify="left", expand=False)
    table.add_column("revision", no_wrap=True)
    table.add_column("role")
    for column in ("weight", "confirmed", "ready", "req/s", "errors", "accuracy", "p99"):
        table.add_column(column, justify="right", no_wrap=True)
    for revision in moment.revisions:
        failing = bool(revision.error_share)
        table.add_row(
            _name(revision),
            revision.role,
            f"{revision.percent} %",
            "-" if revision.confirmed is None else f"{revision.confirmed} %",
            "-" if revision.ready is None else f"{revision.ready}/{revision.replicas}",
            f"{revision.rate:.0f}",
            _share(revision.error_share),
            _share(revision.accuracy),
            "-" if revision.p99_ms is None else f"{revision.p99_ms:.0f} ms",
            style="bold red" if failing else None,
        )
    return table


def _name(revision: RevisionView) -> str:
    if revision.version is None:
        return revision.revision
    return f"v{revision.version} {revision.revision}"


def _weight(revision: RevisionView) -> str:
    if revision.confirmed is not None:
        return f"weight {revision.percent} % (confirmed {revision.confirmed} %)"
    return f"weight {revision.percent} %" + (" (not confirmed yet)" if revision.percent else "")


def _pods(revision: RevisionView) -> str:
    return "" if revision.ready is None else f", {revision.ready}/{revision.replicas} ready"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
