"""What the load generator counts, and the form in which it tells it."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

GATEWAY: Final = "gateway"
"""Stands for the revision of an answer that names none: the gateway's own, or none at all."""

TIMEOUT: Final = "timeout"
RESET: Final = "reset"
CONNECT: Final = "connect"
MALFORMED: Final = "malformed"
OVERLOAD: Final = "overload"
"""Codes beside the HTTP ones: no answer in time; the connection broke; none could be made; a 200
whose body is no inference response; and not sent, since too many requests were in flight."""

OK: Final = "200"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came back.

    Attributes:
        revision: Revision that answered, or `GATEWAY`.
        code: HTTP code as text, or one of this module's codes.
        correct: Whether the answer was the right digit.
        sent_time: When the request was sent, seconds since the epoch.
        latency_ms: From the time when the request was due, so that a stalled sender hides nothing.
    """

    revision: str
    code: str
    correct: bool
    sent_time: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Cell:
    """The answers of one revision with one code in one window.

    Attributes:
        revision: As in `Answer`.
        code: As in `Answer`.
        count: Number of answers.
        correct: How many of them named the right digit.
        first_sent: Earliest `sent_time` among them, seconds since the epoch.
        last_sent: Latest one.
        latencies_ms: One latency for each answer, sorted.
    """

    revision: str
    code: str
    count: int
    correct: int
    first_sent: float
    last_sent: float
    latencies_ms: tuple[float, ...]

    @property
    def ok(self) -> bool:
        """Whether these requests were served."""
        return self.code == OK


@dataclass(frozen=True, slots=True)
class Window:
    """All answers that came in one short span of time; never changed once it is closed.

    Attributes:
        seq: Number of the window, without gaps.
        start_time: When it began, seconds since the epoch.
        monotonic_s: The same on the sender's monotonic clock.
        length_s: How long it was.
        sent: Requests sent in it.
        in_flight: Requests without an answer at its end.
        cells: The answers, by revision and code.
    """

    seq: int
    start_time: float
    monotonic_s: float
    length_s: float
    sent: int
    in_flight: int
    cells: tuple[Cell, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The window as JSON-ready values; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Window":
        """The window that `to_json` wrote."""
        cells = tuple(
            Cell(**{**cell, "latencies_ms": tuple(cell["latencies_ms"])}) for cell in value["cells"]
        )
        return cls(**{**value, "cells": cells})


def quantile(sorted_values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed.

    None of no values.
    """
    if not sorted_values:
        return None
    rank = math.ceil(len(sorted_values) * share)
    return sorted_values[max(rank, 1) - 1]


@dataclass(slots=True)
class Tally:
    """Collects answers and closes them into windows, the newest `keep` of which stay readable.

    Attributes:
        keep: Number of closed windows to keep; the default is an hour of 100 ms windows.
        in_flight: Requests without an answer.
    """

    keep: int = 36_000
    in_flight: int = 0
    _sent: int = 0
    _next_seq: int = 0
    _answers: list[Answer] = field(default_factory=list)
    _windows: deque[Window] = field(default_factory=deque)

    def send(self) -> None:
        """Counts a request as sent."""
        self._sent += 1
        self.in_flight += 1

    def finish(self, answer: Answer) -> None:
        """Counts the answer of a request that was sent."""
        self.in_flight -= 1
        self._answers.append(answer)

    def refuse(self, answer: Answer) -> None:
        """Counts a request that was due and not sent."""
        self._answers.append(answer)

    def close(self, *, start_time: float, monotonic_s: float, length_s: float) -> Window:
        """Closes the window that began at `start_time` and begins the next."""
        window = Window(
            seq=self._next_seq,
            start_time=start_time,
            monotonic_s=monotonic_s,
            length_s=length_s,
            sent=self._sent,
            in_flight=self.in_flight,
            cells=_cells(self._answers),
        )
        self._next_seq += 1
        self._sent = 0
        self._answers = []
        self._windows.append(window)
        while len(self._windows) > self.keep:
            self._windows.popleft()
        return window

    @property
    def first_seq(self) -> int:
        """Number of the oldest window that is still readable."""
        return self._windows[0].seq if self._windows else self._next_seq

    @property
    def next_seq(self) -> int:
        """Number of the window that is open."""
        return self._next_seq

    def since(self, seq: int, limit: int) -> list[Window]:
        """At most `limit` closed windows from number `seq` on, oldest first."""
        begin = max(0, seq - self.first_seq)
        end = min(begin + limit, len(self._windows))
        return [self._windows[index] for index in range(begin, end)]


def _cells(answers: Iterable[Answer]) -> tuple[Cell, ...]:
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.revision, answer.code), []).append(answer)
    return tuple(
        Cell(
            revision=revision,
            code=code,
            count=len(group),
            correct=sum(answer.correct for answer in group),
            first_sent=min(answer.sent_time for answer in group),
            last_sent=max(answer.sent_time for answer in group),
            latencies_ms=tuple(sorted(round(answer.latency_ms, 2) for answer in group)),
        )
        for (revision, code), group in sorted(groups.items())
    )
