"""The share of bad events of the candidate against stable's, by a sequential test of two samples.

Of the bad events of one look, the candidate's part follows from how the events are split, if its
share is ``tolerance`` times that of stable: each bad event is the candidate's with probability

    theta = tolerance * n_candidate / (tolerance * n_candidate + n_stable).

(Exactly so for rare bad events, which are Poisson. For equal shares of any size the truth is
hypergeometric, which is less dispersed than this binomial: W. Hoeffding, 1963, theorem 4. A
likelihood ratio is convex in the count, so its mean stays at most 1.) Stable's share itself need
not be known, and whatever troubles both alike, such as a client that sends nonsense, cancels out.

Where stable has no traffic to compare with (a bake, a weight of 100 %), the limit is ``tolerance``
times an upper bound of the share that stable had before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from model_operator.api.samples import Answer, Failure, FailureKind, Query
from model_operator.core.counters import AmbiguousSeriesError, Counters, advance, by_pod
from model_operator.core.counting import Tally, judge, percent
from model_operator.core.sequential import Mixture, observe, observe_ratios
from model_operator.core.verdict import Finding, no_data, unanswered

_MULTIPLES = (2.0, 4.0, 10.0, 40.0)
"""Alternatives: the candidate's share as a multiple of the healthy most, weak to strong."""

_LARGEST_LIMIT = 0.5


@dataclass(frozen=True, slots=True)
class VersusTest:
    """The candidate's share of bad events against stable's.

    Attributes:
        name: The metric's name.
        bad: Query for the candidate's counters of bad events.
        total: Query for the candidate's counters of all events.
        stable: The same two queries for stable; None when it has no traffic.
        tolerance: Largest healthy multiple of stable's share.
        min_events: New events of the candidate that a step needs to pass.
        alpha: Largest probability that a healthy revision ever fails this test.
    """

    name: str
    bad: Query
    total: Query
    stable: tuple[Query, Query] | None
    tolerance: float
    min_events: int
    alpha: float

    @property
    def queries(self) -> tuple[Query, ...]:
        """What to ask at each look."""
        return (self.bad, self.total, *(self.stable or ()))


@dataclass(frozen=True, slots=True)
class VersusState:
    """What a `VersusTest` remembers.

    Attributes:
        counters: Last readings of the candidate.
        stable: Last readings of stable.
        stable_bad: Bad events of stable since the rollout began.
        stable_total: Events of stable since the rollout began.
        tally: The sequential test and the candidate's counts of this step.
    """

    counters: Counters = field(default_factory=Counters)
    stable: Counters = field(default_factory=Counters)
    stable_bad: float = 0.0
    stable_total: float = 0.0
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class _Look:
    """New events of one look."""

    bad: float
    total: float
    stable_bad: float = 0.0
    stable_total: float = 0.0


def assess_versus(
    test: VersusTest,
    state: VersusState,
    answers: Mapping[Query, Answer],
    *,
    step: int,
    now: float,
) -> tuple[VersusState, Finding]:
    """Judge the events since the look before.

    - error: a query has no answer, or two series for one pod. The next look counts what this one
      missed.
    - insufficient: the candidate has no counters, or stable never had an event; and what `judge`
      calls so.
    - fail, pass: see `judge`.
    """
    readings = []
    for query in test.queries:
        answer = answers[query]
        if isinstance(answer, Failure):
            return state, unanswered(test.name, answer, now)
        try:
            readings.append(by_pod(answer))
        except AmbiguousSeriesError as error:
            failure = Failure(FailureKind.CONFIGURATION, str(error))
            return state, unanswered(test.name, failure, now)
    counters, bad, total = advance(state.counters, readings[0], readings[1])
    look = _Look(bad, total)
    if test.stable is not None:
        stable, stable_bad, stable_total = advance(state.stable, readings[2], readings[3])
        look = _Look(bad, total, stable_bad, stable_total)
        state = replace(state, stable=stable)
    mixture = _observe(test, state, look, now)
    state = replace(
        state,
        counters=counters,
        # After the test: its limit may depend on what was, never on what it judges.
        stable_bad=state.stable_bad + look.stable_bad,
        stable_total=state.stable_total + look.stable_total,
        tally=state.tally.counted(mixture, step=step, bad=bad, total=total, now=now),
    )
    if not readings[1]:
        return state, no_data(
            test.name, "no counters of the candidate: the answer is empty, stale or NaN", now
        )
    if not state.stable_total:
        return state, no_data(test.name, "stable had no events to compare with", now)
    return state, _judge(test, state, collecting=total > 0, now=now)


def _observe(test: VersusTest, state: VersusState, look: _Look, now: float) -> Mixture:
    mixture = state.tally.mixture
    if not look.total:
        return mixture
    if not look.stable_total:
        if not state.stable_total:
            return mixture
        limit = min(test.tolerance * _upper_share(state), _LARGEST_LIMIT)
        return observe(mixture, bad=look.bad, total=look.total, limit=limit, now=now)
    healthy = test.tolerance * look.total / look.stable_total
    ratios = tuple(
        _log_ratio(look.bad, look.stable_bad, healthy, multiple * healthy)
        for multiple in _MULTIPLES
    )
    return observe_ratios(mixture, ratios, bad=look.bad, total=look.total, now=now)


def _log_ratio(bad: float, stable_bad: float, odds: float, other_odds: float) -> float:
    """Of the split of bad events under other odds for the candidate against ``odds``."""
    shrunk = math.log((1 + odds) / (1 + other_odds))
    return bad * (math.log(other_odds / odds) + shrunk) + stable_bad * shrunk


def _upper_share(state: VersusState) -> float:
    """Three standard deviations above the share that stable had, as of a Poisson count."""
    bad = state.stable_bad
    return (bad + 3 * math.sqrt(bad + 1) + 3) / state.stable_total


def _judge(test: VersusTest, state: VersusState, *, collecting: bool, now: float) -> Finding:
    share = state.stable_bad / state.stable_total
    return judge(
        test.name,
        state.tally,
        limit=test.tolerance * share,
        limit_text=f"{test.tolerance:g} times stable's {percent(share)} "
        f"({state.stable_bad:g} of {state.stable_total:g})",
        min_events=test.min_events,
        alpha=test.alpha,
        collecting=collecting,
        now=now,
    )
