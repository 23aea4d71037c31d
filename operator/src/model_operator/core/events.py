"""The share of bad events of one revision against a limit: `Events`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_operator.api.samples import Answer, Failure, FailureKind, Query
from model_operator.core.counters import AmbiguousSeriesError, Counters, advance, by_pod
from model_operator.core.counting import Tally, judge, percent
from model_operator.core.sequential import observe
from model_operator.core.verdict import Finding, no_data, unanswered


@dataclass(frozen=True, slots=True)
class EventsTest:
    """The share of bad events of one revision against a limit.

    Attributes:
        name: The metric's name.
        bad: Query for the counters of bad events.
        total: Query for the counters of all events.
        limit: Largest healthy share, 0 to 1.
        min_events: New events that a step needs to pass.
        alpha: Largest probability that a healthy revision ever fails this test.
    """

    name: str
    bad: Query
    total: Query
    limit: float
    min_events: int
    alpha: float

    @property
    def queries(self) -> tuple[Query, ...]:
        """What to ask at each look."""
        return (self.bad, self.total)


@dataclass(frozen=True, slots=True)
class EventsState:
    """What an `EventsTest` remembers.

    Attributes:
        counters: Last readings.
        tally: The sequential test and the step's counts.
    """

    counters: Counters = field(default_factory=Counters)
    tally: Tally = field(default_factory=Tally)


def assess_events(
    test: EventsTest,
    state: EventsState,
    answers: Mapping[Query, Answer],
    *,
    step: int,
    now: float,
) -> tuple[EventsState, Finding]:
    """Judge the events since the look before.

    - error: a query has no answer, or two series for one pod. The next look counts what this one
      missed.
    - insufficient: there are no counters at all; and what `judge` calls so.
    - fail, pass: see `judge`.
    """
    bad, total = answers[test.bad], answers[test.total]
    if isinstance(bad, Failure):
        return state, unanswered(test.name, bad, now)
    if isinstance(total, Failure):
        return state, unanswered(test.name, total, now)
    try:
        readings = by_pod(total)
        counters, new_bad, new_total = advance(state.counters, by_pod(bad), readings)
    except AmbiguousSeriesError as error:
        failure = Failure(FailureKind.CONFIGURATION, str(error))
        return state, unanswered(test.name, failure, now)
    mixture = observe(state.tally.mixture, bad=new_bad, total=new_total, limit=test.limit, now=now)
    tally = state.tally.counted(mixture, step=step, bad=new_bad, total=new_total, now=now)
    state = EventsState(counters, tally)
    if not readings:
        return state, no_data(test.name, "no counters: the answer is empty, stale or NaN", now)
    return state, judge(
        test.name,
        tally,
        limit=test.limit,
        limit_text=percent(test.limit),
        min_events=test.min_events,
        alpha=test.alpha,
        collecting=new_total > 0,
        now=now,
    )
