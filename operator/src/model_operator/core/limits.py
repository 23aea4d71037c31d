"""Tests on one number: against fixed limits (`Value`) and against stable (`Comparison`).

A windowed number is noisy: a 99th percentile of thirty requests is nearly their maximum. Judged on
one look, it rolls healthy releases back by chance, and the looks that follow prove nothing, because
their windows hold the same requests. So a breach fails a revision only if it lasts: every look of a
run must show it, and the run must span at least one window, so that its first and its last look
share no request. A healthy revision's breach ends by itself; that of a bad one is confirmed one
window after it was first seen. Until then the outcome is insufficient: the weight does not rise.

Stable's number is noise too. A comparison therefore needs a breach by a wide margin (`WIDE` times
stable's number) for one window, or any breach for `PATIENCE` windows. Where stable has no traffic
any more (a bake, a weight of 100 %), the highest of its remembered numbers takes its place, since
one of them may have been low by chance, and only a wide margin counts: times change.

Where requests are few, time alone proves nothing either: one slow request is the percentile of its
whole window. A number that a query reads over a range is therefore confirmed by events as well, if
a counting metric of the analysis tells how many there were: `LEAST_EVENTS`, or `PATIENCE_EVENTS`
where patience is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from model_operator.api.samples import Answer, Failure, FailureKind, Query
from model_operator.core.runs import LEAST_EVENTS, Moment, Run
from model_operator.core.verdict import (
    ANALYSIS_FAILED,
    BREACH_UNCONFIRMED,
    HEALTHY,
    Finding,
    Outcome,
    no_data,
    unanswered,
)

WIDE = 2.25
PATIENCE = 6.0
PATIENCE_EVENTS = 3 * LEAST_EVENTS

_REMEMBERED = 12
"""Numbers of stable, at least a window apart."""


@dataclass(frozen=True, slots=True)
class ValueTest:
    """One number against limits.

    Attributes:
        name: The metric's name.
        query: The number.
        lowest: Fails below this; None for no limit.
        highest: Fails above this; None for no limit.
        window_s: Span that one number covers, seconds.
        counted: Whether the number is made of events (the query reads a range), so that a breach
            must be seen over enough of them.
    """

    name: str
    query: Query
    lowest: float | None
    highest: float | None
    window_s: float
    counted: bool

    @property
    def queries(self) -> tuple[Query, ...]:
        """What to ask at each look."""
        return (self.query,)


@dataclass(frozen=True, slots=True)
class ComparisonTest:
    """The candidate's number against stable's.

    Attributes:
        name: The metric's name.
        candidate: The candidate's number.
        stable: Stable's number; None when stable has no traffic: the highest that was measured of
            it before takes its place.
        increase: Largest healthy increase, as a share of stable's number.
        window_s: Span that one number covers, seconds.
        counted: Whether the number is made of events (the query reads a range), so that a breach
            must be seen over enough of them.
    """

    name: str
    candidate: Query
    stable: Query | None
    increase: float
    window_s: float
    counted: bool

    @property
    def queries(self) -> tuple[Query, ...]:
        """What to ask at each look."""
        return (self.candidate,) if self.stable is None else (self.candidate, self.stable)


@dataclass(frozen=True, slots=True)
class LimitState:
    """What a `ValueTest` or a `ComparisonTest` remembers.

    Attributes:
        breach: The present run of breaches.
        wide: The present run of breaches by a wide margin.
        reference: Stable's last numbers, each from a window of its own.
        reference_time: When the last of them was taken, seconds since the epoch.
        looks: Looks with a number since the rollout began.
    """

    breach: Run = field(default_factory=Run)
    wide: Run = field(default_factory=Run)
    reference: tuple[float, ...] = ()
    reference_time: float = 0.0
    looks: int = 0


def one_number(answer: Answer) -> float | Failure | None:
    """The number of an answer; None when there is none (no series, or NaN).

    More than one series is a mistake in the query: neither of them is chosen.
    """
    if isinstance(answer, Failure):
        return answer
    if len(answer.series) > 1:
        return Failure(
            FailureKind.CONFIGURATION,
            f"the query has {len(answer.series)} series for an answer, but one number is needed: "
            "aggregate them, for example with 'max (...)'",
        )
    if not answer.series or math.isnan(answer.series[0].value):
        return None
    return float(answer.series[0].value)


def assess_value(
    test: ValueTest, state: LimitState, answers: Mapping[Query, Answer], moment: Moment
) -> tuple[LimitState, Finding]:
    """Judge one look at a `ValueTest`.

    - fail: beyond a limit at every look of a run that spans a window.
    - error: no answer, or more than one series.
    - insufficient: no number, or a breach that is not confirmed yet.
    - pass: a number within the limits, taken in this step.
    """
    value = one_number(answers[test.query])
    if isinstance(value, Failure):
        return state, unanswered(test.name, value, moment.now)
    if value is None:
        return state, no_data(test.name, "no number: the answer is empty, stale or NaN", moment.now)
    too_low = test.lowest is not None and value < test.lowest
    too_high = test.highest is not None and value > test.highest
    word, limit = "upper", test.highest
    if too_low or limit is None:
        word, limit = "lower", test.lowest
    moment = moment if test.counted else replace(moment, served=None)
    state = _look(state, test.window_s, moment, breach=too_low or too_high)
    text = f"{value:.4g}, {word} limit {limit:.4g}"
    failed = state.breach.spans(test.window_s, LEAST_EVENTS)
    return state, _judge(
        test.name, state, moment, text=text, value=value, limit=limit, failed=failed
    )


def assess_comparison(
    test: ComparisonTest, state: LimitState, answers: Mapping[Query, Answer], moment: Moment
) -> tuple[LimitState, Finding]:
    """Judge one look at a `ComparisonTest`.

    - fail: above `WIDE` times stable's number at every look of a run that spans a window, or above
      the limit at every look of a run that spans `PATIENCE` windows, beside stable.
    - error: no answer, or more than one series.
    - insufficient: no number of the candidate, or none of stable, now or remembered; or a breach
      that is not confirmed yet.
    - pass: a number within the limit, taken in this step.
    """
    value = one_number(answers[test.candidate])
    stable = one_number(answers[test.stable]) if test.stable is not None else None
    for number in (value, stable):
        if isinstance(number, Failure):
            return state, unanswered(test.name, number, moment.now)
    beside_stable = isinstance(stable, float)
    if isinstance(stable, float):
        state = _remember(state, stable, test.window_s, moment.now)
    else:
        stable = max(state.reference, default=None)
    if not isinstance(value, float) or stable is None:
        missing = "stable" if isinstance(value, float) else "the candidate"
        why = f"no number of {missing}: the answer is empty, stale or NaN"
        return state, no_data(test.name, why, moment.now)
    limit = stable + abs(stable) * test.increase
    wide = stable != 0 and value > max(limit, stable + abs(stable) * (WIDE - 1))
    moment = moment if test.counted else replace(moment, served=None)
    state = _look(state, test.window_s, moment, breach=value > limit, wide=wide)
    text = f"{value:.4g}, stable {stable:.4g}, limit {limit:.4g}"
    failed = state.wide.spans(test.window_s, LEAST_EVENTS) or (
        beside_stable and state.breach.spans(PATIENCE * test.window_s, PATIENCE_EVENTS)
    )
    return state, _judge(
        test.name, state, moment, text=text, value=value, limit=limit, failed=failed
    )


def _remember(state: LimitState, stable: float, window_s: float, now: float) -> LimitState:
    if not math.isfinite(stable) or (state.reference and now - state.reference_time < window_s):
        return state
    reference = (*state.reference, stable)[-_REMEMBERED:]
    return replace(state, reference=reference, reference_time=now)


def _look(
    state: LimitState, window_s: float, moment: Moment, *, breach: bool, wide: bool = False
) -> LimitState:
    return replace(
        state,
        looks=state.looks + 1,
        breach=state.breach.extended(moment, breach=breach, window_s=window_s),
        wide=state.wide.extended(moment, breach=wide, window_s=window_s),
    )


def _judge(
    name: str,
    state: LimitState,
    moment: Moment,
    *,
    text: str,
    value: float,
    limit: float | None,
    failed: bool,
) -> Finding:
    run = state.breach
    lasted = f"at each of {run.looks} looks in {run.lasted_s:.0f} s"
    if failed:
        outcome, reason, message = Outcome.FAIL, ANALYSIS_FAILED, f"{text}, breached {lasted}"
    elif run.looks:
        outcome, reason = Outcome.INSUFFICIENT, BREACH_UNCONFIRMED
        message = f"{text}, breached {lasted}, which may be chance"
    else:
        outcome, reason, message = Outcome.PASS, HEALTHY, text
    return Finding(
        metric=name,
        outcome=outcome,
        reason=reason,
        value=value if math.isfinite(value) else None,
        threshold=limit,
        samples=run.looks or state.looks,
        message=f"{name}: {message}",
        time=moment.now,
        collecting=outcome is Outcome.INSUFFICIENT,
    )
