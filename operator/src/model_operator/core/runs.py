"""Breaches that last: how often and how long a number must be wrong before that is no accident."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_LOOKS = 3
LEAST_EVENTS = 100.0
"""Events that a breach of one window must have been seen over, as a 99th percentile needs."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a look is, in seconds and in events.

    Attributes:
        now: Seconds since the epoch.
        served: Events of the revision since the rollout began; None where nobody counts them.
    """

    now: float
    served: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Looks in a row that showed a breach.

    Attributes:
        looks: How many; 0 when the last look showed none.
        since: When the first was, seconds since the epoch.
        last: When the last was.
        served_before: Events of the revision before the first; None where nobody counts them.
        served: Events of the revision before the last.
    """

    looks: int = 0
    since: float = 0.0
    last: float = 0.0
    served_before: float | None = None
    served: float | None = None

    @property
    def lasted_s(self) -> float:
        """From the first look to the last, seconds."""
        return self.last - self.since

    def extended(self, moment: Moment, *, breach: bool, window_s: float) -> Run:
        """The run after one more look. A gap of more than a window begins a new one."""
        if not breach:
            return Run()
        if self.looks == 0 or moment.now - self.last > max(window_s, self._usual_gap_s()):
            return Run(1, moment.now, moment.now, moment.served, moment.served)
        return Run(self.looks + 1, self.since, moment.now, self.served_before, moment.served)

    def _usual_gap_s(self) -> float:
        # Looks may be further apart than the window is long.
        return 3 * self.lasted_s / (self.looks - 1) if self.looks > 1 else math.inf

    def spans(self, span_s: float, events: float) -> bool:
        """Whether it lasts long enough to be no accident.

        Args:
            span_s: Seconds from its first look to its last.
            events: Events of the revision in that time, where they are counted.
        """
        if self.looks < LEAST_LOOKS or self.lasted_s < span_s:
            return False
        if self.served is None or self.served_before is None:
            return True
        return self.served - self.served_before >= events
