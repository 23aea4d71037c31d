"""The time that steps, deadlines and bakes are counted in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class SteadyClock:
    """Seconds since the epoch that go on evenly while the process runs.

    The wall clock is read once, at the start. When it is set forwards in the middle of a step, the
    step must not be over at once, nor a deadline; when it is set back, the step must not take that
    much longer. A later operator reads the wall clock again, so that a wrong clock at the start is
    not kept for ever.

    Attributes:
        wall: Seconds since the epoch.
        steady: Seconds that are never set.
    """

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    _offset_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Read the wall clock."""
        self._offset_s = self.wall() - self.steady()

    def __call__(self) -> float:
        """Now."""
        return self._offset_s + self.steady()
