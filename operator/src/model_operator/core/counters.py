"""New events between two looks at raw counters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from model_operator.api.samples import POD_LABEL, Samples


class AmbiguousSeriesError(Exception):
    """Two series of an answer claim to be the same counter."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Last readings, by pod. A pod that is gone is remembered, lest it counts anew if it returns.

    Attributes:
        started: Whether there was a first look. It is the baseline: it has no events.
        bad: Bad events so far.
        total: All events so far.
    """

    started: bool = False
    bad: Mapping[str, float] = field(default_factory=dict)
    total: Mapping[str, float] = field(default_factory=dict)


def by_pod(samples: Samples) -> dict[str, float]:
    """Readings by the label ``pod``, or by the empty string where there is no such label.

    Raises:
        AmbiguousSeriesError: Two series have the same pod.
    """
    readings: dict[str, float] = {}
    for series in samples.series:
        pod = series.label(POD_LABEL)
        if pod in readings:
            whose = f"pod {pod}" if pod else "no pod label"
            raise AmbiguousSeriesError(
                f"two series with {whose}; a counter needs one for each pod: "
                "write 'sum by (pod) (...)'"
            )
        readings[pod] = series.value
    return {pod: value for pod, value in readings.items() if math.isfinite(value)}


def advance(
    counters: Counters, bad: Mapping[str, float], total: Mapping[str, float]
) -> tuple[Counters, float, float]:
    """Events since the look before: the new state, bad events, all events.

    - The first look has no events. Where it saw no series at all, everything was at zero.
    - A pod that was not there before counts from 0: it is new, and so are its events. So does a
      counter that was missing until its first event.
    - A reading below the one before is a restarted process: it counts from 0.
    - A pod whose total is missing has nothing to judge; its bad events wait for the total.
    - Bad events beyond the total's increase (the two were read a scrape apart) wait for the next
      look, so that no batch has more bad events than events and none is lost.

    Examples:
        ``total`` 100 -> 130 and ``bad`` 0 -> 2: 30 events, 2 bad. ``total`` 130 -> 10: the process
        restarted, 10 events.
    """
    last_bad, last_total = dict(counters.bad), dict(counters.total)
    new_bad = new_total = 0.0
    for pod, reading in total.items():
        if not counters.started:
            last_total[pod], last_bad[pod] = reading, min(bad.get(pod, 0.0), reading)
            continue
        before = last_total.get(pod, 0.0)
        restarted = reading < before
        last_total[pod] = reading
        events = reading if restarted else reading - before
        last_bad[pod], bad_events = _bad_events(
            0.0 if restarted else last_bad.get(pod, 0.0), bad.get(pod), events, reading
        )
        new_bad += bad_events
        new_total += events
    return Counters(started=True, bad=last_bad, total=last_total), new_bad, new_total


def _bad_events(
    before: float, reading: float | None, events: float, total_reading: float
) -> tuple[float, float]:
    """The bad counter's reading to remember, and its new events."""
    if reading is None or reading > total_reading:
        # More bad events than there ever were events: a reading from before the restart.
        return before, 0.0
    if reading < before:
        before = 0.0
    bad_events = min(reading - before, events)
    return before + bad_events, bad_events
