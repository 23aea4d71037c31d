"""Tests on counts of bad events: `Events`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from model_operator.api.samples import Answer, Failure, FailureKind, Query
from model_operator.core.counters import AmbiguousSeriesError, Counters, advance, by_pod
from model_operator.core.sequential import Mixture, observe
from model_operator.core.verdict import (
    ANALYSIS_FAILED,
    BREACH_UNCONFIRMED,
    HEALTHY,
    INSUFFICIENT_DATA,
    Finding,
    Outcome,
    no_data,
    unanswered,
)

SUSPICION = 10.0
"""An e-value above which nothing is said in favour of a revision: it has at most one chance in ten
ever to get there when it is healthy."""


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
        mixture: The sequential test, over all steps.
        step: The step that the next two are about.
        step_bad: Bad events of this step.
        step_total: Events of this step.
    """

    counters: Counters = field(default_factory=Counters)
    mixture: Mixture = field(default_factory=Mixture)
    step: int | None = None
    step_bad: float = 0.0
    step_total: float = 0.0


def assess_events(
    test: EventsTest,
    state: EventsState,
    answers: Mapping[Query, Answer],
    *,
    step: int,
    now: float,
) -> tuple[EventsState, Finding]:
    """Judge the events since the look before.

    - fail: the sequential test reached ``1 / alpha``.
    - error: a query has no answer; the next look counts what this one missed.
    - insufficient: no counters at all, fewer than ``min_events`` events in this step, or evidence
      against the revision that is strong (`SUSPICION`) but does not suffice to fail it.
    - pass: otherwise.
    """
    bad, total = answers[test.bad], answers[test.total]
    if isinstance(bad, Failure):
        return state, unanswered(test.name, bad, now)
    if isinstance(total, Failure):
        return state, unanswered(test.name, total, now)
    try:
        counters, new_bad, new_total = advance(state.counters, by_pod(bad), by_pod(total))
    except AmbiguousSeriesError as error:
        failure = Failure(FailureKind.CONFIGURATION, str(error))
        return state, unanswered(test.name, failure, now)
    state = replace(
        state,
        counters=counters,
        mixture=observe(state.mixture, bad=new_bad, total=new_total, limit=test.limit, now=now),
    )
    if state.step == step:
        state = replace(
            state, step_bad=state.step_bad + new_bad, step_total=state.step_total + new_total
        )
    else:
        # This look's events began in the step before; they count for the test alone.
        state = replace(state, step=step, step_bad=0.0, step_total=0.0)
    if state.mixture.e_value >= 1 / test.alpha:
        return state, _failed(test, state, now)
    if not total.series:
        return state, no_data(test.name, "there are no counters", now)
    return state, _not_failed(test, state, collecting=new_total > 0, now=now)


def _failed(test: EventsTest, state: EventsState, now: float) -> Finding:
    worst = state.mixture.strongest
    return Finding(
        metric=test.name,
        outcome=Outcome.FAIL,
        reason=ANALYSIS_FAILED,
        value=worst.bad / worst.total,
        threshold=test.limit,
        samples=int(worst.total),
        message=f"{test.name}: {_percent(worst.bad / worst.total)} of {worst.total:g} events are "
        f"bad ({worst.bad:g}), limit {_percent(test.limit)}; one-sided sequential test at "
        f"{test.alpha:.2g} over the whole rollout",
        time=now,
    )


def _not_failed(test: EventsTest, state: EventsState, *, collecting: bool, now: float) -> Finding:
    share = state.step_bad / state.step_total if state.step_total else None
    seen = f"{state.step_bad:g} of {state.step_total:g} events of this step are bad"
    limit = f"limit {_percent(test.limit)}"
    if state.step_total < test.min_events:
        outcome, reason = Outcome.INSUFFICIENT, INSUFFICIENT_DATA
        message = f"{seen}, {limit}; {test.min_events} events are needed"
    elif state.mixture.e_value >= SUSPICION:
        outcome, reason = Outcome.INSUFFICIENT, BREACH_UNCONFIRMED
        message = f"{seen}, {limit}; what speaks against it may be chance"
    else:
        outcome, reason, message = Outcome.PASS, HEALTHY, f"{seen}, {limit}"
    return Finding(
        metric=test.name,
        outcome=outcome,
        reason=reason,
        value=share,
        threshold=test.limit,
        samples=int(state.step_total),
        message=f"{test.name}: {message}",
        time=now,
        collecting=collecting and outcome is Outcome.INSUFFICIENT,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
