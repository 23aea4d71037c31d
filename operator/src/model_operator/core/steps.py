"""Arithmetic of steps: shares, capacity and the step's clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model_operator.api.times import format_time, parse_time
from model_operator.api.types import CandidateStatus, Step, replace

PREFLIGHT = -1
"""Index of the time before the first step: no traffic, the model is loaded and warmed up."""


def capacity(replicas: int, percent: int) -> int:
    """Pods that a revision needs for its share of the traffic.

    ``ceil(replicas x percent / 100)``, and at least one, as some pod has to answer.

    >>> [capacity(3, percent) for percent in (0, 1, 33, 34, 67, 100)]
    [1, 1, 1, 2, 3, 3]
    >>> capacity(0, 50)
    1
    """
    return max(1, math.ceil(replicas * percent / 100))


def percent_at(steps: Sequence[Step], index: int) -> int:
    """Planned weight of the candidate at a step, percent; a pause keeps what was before it.

    Past the last step it is 100: the candidate is promoted. Before the first it is 0.
    """
    if index >= len(steps):
        return 100
    for step in reversed(steps[: index + 1]):
        if step.set_weight is not None:
            return step.set_weight.percent
    return 0


def level(steps: Sequence[Step], index: int) -> int:
    """Index of the step that set the present weight: evidence is gathered for each weight.

    A pause belongs to the weight before it. Before the first weight it is `PREFLIGHT`.
    """
    for position in range(min(index, len(steps) - 1), -1, -1):
        if steps[position].set_weight is not None:
            return position
    return PREFLIGHT


def path(steps: Sequence[Step], index: int) -> str:
    """The steps up to one, without their times, so that an edit of them can be told.

    >>> from model_operator.api.types import Duration, Pause, SetWeight
    >>> five = Step(set_weight=SetWeight(percent=5, duration=Duration("1m")))
    >>> path([five, Step(pause=Pause())], 1)
    '5 pause'
    """
    taken = steps[: index + 1]
    return " ".join(str(s.set_weight.percent) if s.set_weight else "pause" for s in taken)


def duration_s(step: Step) -> float | None:
    """How long a step is held at least, seconds; None for a pause that waits for a person."""
    if step.set_weight is not None:
        return step.set_weight.duration.seconds
    if step.pause is not None and step.pause.duration is not None:
        return step.pause.duration.seconds
    return None


def elapsed_s(candidate: CandidateStatus, now: float) -> float:
    """Time that counted for the present step so far, seconds."""
    running = candidate.step_clock_time
    since = max(0.0, now - parse_time(running)) if running else 0.0
    return candidate.step_elapsed_seconds + since


def run_clock(candidate: CandidateStatus, now: float) -> CandidateStatus:
    """The candidate with its step's clock running."""
    if candidate.step_clock_time is not None:
        return candidate
    return replace(candidate, step_clock_time=format_time(now))


def stop_clock(candidate: CandidateStatus, now: float) -> CandidateStatus:
    """The candidate with its step's clock stopped at what it shows now."""
    if candidate.step_clock_time is None:
        return candidate
    elapsed = round(elapsed_s(candidate, now), 3)
    return replace(candidate, step_clock_time=None, step_elapsed_seconds=elapsed)


def insufficient_s(candidate: CandidateStatus, now: float) -> float | None:
    """How long evidence has been missing, seconds; None when it is not.

    While something else is awaited nothing is measured, so that time does not count.
    """
    since, waiting = candidate.insufficient_since_time, candidate.waiting_since_time
    if since is None:
        return None
    until = parse_time(waiting) if waiting is not None else now
    return max(0.0, until - parse_time(since))


def end_wait(candidate: CandidateStatus, now: float) -> CandidateStatus:
    """The candidate that awaits nothing any more."""
    if candidate.waiting_since_time is None:
        return candidate
    missing_s = insufficient_s(candidate, now)
    since = format_time(now - missing_s) if missing_s is not None else None
    return replace(candidate, waiting_since_time=None, insufficient_since_time=since)


def freeze(candidate: CandidateStatus, now: float) -> CandidateStatus:
    """The candidate with all of its clocks stopped: nothing that it can do is awaited."""
    return end_wait(stop_clock(candidate, now), now)
