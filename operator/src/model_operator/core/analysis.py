"""The analysis of a revision: pure, then I/O, then pure again.

    plan = compile_plan(spec.rollout.analysis, subject)
    answers = await ask(due(plan, state, now))          # the caller's I/O
    state, verdict = assess(plan, state, answers, step=step, now=now)
    queue.add_after(key, next_look(plan, state) - now)

One state belongs to one rollout of one revision. It is kept through all steps and the bake; a
retry or a new rollout begins with ``AnalysisState()``. It survives in
``ModelRevision.status.tests`` as ``state_to_json`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from model_operator.api.plain import from_plain, to_plain
from model_operator.api.samples import Answer, Failure, FailureKind, Query
from model_operator.core.events import EventsState, EventsTest, assess_events
from model_operator.core.limits import (
    ComparisonTest,
    LimitState,
    ValueTest,
    assess_comparison,
    assess_value,
)
from model_operator.core.plan import Plan, Subject, Test, Unusable, compile_plan
from model_operator.core.runs import Moment
from model_operator.core.verdict import Finding, Outcome, Verdict, combine, no_data, unanswered
from model_operator.core.versus import VersusState, VersusTest, assess_versus

__all__ = [
    "AnalysisState",
    "Plan",
    "Subject",
    "assess",
    "compile_plan",
    "due",
    "next_look",
    "state_from_json",
    "state_to_json",
]

STATE_VERSION = 1
"""Of the kept state. Whoever changes its shape raises this: running tests then start afresh."""


@dataclass(frozen=True, slots=True)
class TestState:
    """What is remembered of one metric.

    Attributes:
        fingerprint: Of the definition that the rest belongs to.
        finding: What was found last. A failure stays.
        events: For Events.
        versus: For what is counted against stable.
        limit: For Value and Comparison.
    """

    __test__ = False  # for pytest

    fingerprint: str
    finding: Finding
    events: EventsState | None = None
    versus: VersusState | None = None
    limit: LimitState | None = None


@dataclass(frozen=True, slots=True)
class AnalysisState:
    """What the tests remember from look to look. ``AnalysisState()`` knows nothing yet.

    Attributes:
        version: `STATE_VERSION` of whoever wrote it.
        look: When the last look was, seconds since the epoch; None before the first.
        step: The step that the findings are about.
        tests: By name of the metric.
    """

    version: int = STATE_VERSION
    look: float | None = None
    step: int | None = None
    tests: Mapping[str, TestState] = field(default_factory=dict)


def due(plan: Plan, state: AnalysisState, now: float) -> tuple[Query, ...]:
    """Queries to ask now; empty when the next look is not due yet."""
    # A clock that was set back must not stop the analysis.
    if state.look is not None and state.look <= now < next_look(plan, state):
        return ()
    return tuple(dict.fromkeys(query for test in plan.tests for query in test.queries))


def next_look(plan: Plan, state: AnalysisState) -> float:
    """When something is due next, seconds since the epoch; 0 when nothing was asked yet."""
    return 0.0 if state.look is None else state.look + plan.interval_s


def assess(
    plan: Plan,
    state: AnalysisState,
    answers: Mapping[Query, Answer],
    *,
    step: int,
    now: float,
) -> tuple[AnalysisState, Verdict]:
    """Judge the answers.

    Args:
        plan: What is tested.
        state: As the look before left it.
        answers: An answer to each query that was due; a query without one counts as
            ``MetricsUnavailable``. With no answers at all the verdict is the one before, as far as
            it is about this step; where no metric can be asked as it is written, that is the look.
        step: A number for the step and its weight, another one for the bake. When it changes, the
            evidence that a pass needs is collected anew; running tests go on.
        now: Seconds since the epoch.

    Returns:
        The state to keep and the verdict. A failure stays one for the life of the state.
    """
    if not answers and any(test.queries for test in plan.tests):
        return state, combine(
            tuple(
                _unchanged(
                    test, _known(state, test, fingerprint), now, same_step=state.step == step
                )
                for test, fingerprint in zip(plan.tests, plan.fingerprints, strict=True)
            )
        )
    tests: dict[str, TestState] = {}
    # What counts events goes first: the others are judged by how many there were.
    for test, fingerprint in sorted(
        zip(plan.tests, plan.fingerprints, strict=True), key=lambda pair: not _counts(pair[0])
    ):
        known = _known(state, test, fingerprint) or _unknown(test, fingerprint, now)
        moment = Moment(now, _served(tests.values()))
        tests[test.name] = _assess_one(test, known, answers, step=step, moment=moment)
    verdict = combine(tuple(tests[test.name].finding for test in plan.tests))
    return AnalysisState(look=now, step=step, tests=tests), verdict


def state_to_json(state: AnalysisState) -> dict[str, Any]:
    """For ``ModelRevision.status.tests``."""
    plain: dict[str, Any] = to_plain(state)
    return plain


def state_from_json(data: Mapping[str, Any]) -> AnalysisState:
    """Read what `state_to_json` wrote; anything it cannot read starts afresh."""
    state = from_plain(data, AnalysisState)
    return state if state is not None and state.version == STATE_VERSION else AnalysisState()


def _known(state: AnalysisState, test: Test, fingerprint: str) -> TestState | None:
    known = state.tests.get(test.name)
    return known if known is not None and known.fingerprint == fingerprint else None


def _unchanged(test: Test, known: TestState | None, now: float, *, same_step: bool) -> Finding:
    if isinstance(test, Unusable):
        return unanswered(test.name, test.failure, now)
    if known is not None and (same_step or known.finding.outcome is Outcome.FAIL):
        return known.finding
    return no_data(test.name, "nothing was measured in this step yet", now)


def _unknown(test: Test, fingerprint: str, now: float) -> TestState:
    return TestState(fingerprint, no_data(test.name, "nothing was measured yet", now))


def _counts(test: Test) -> bool:
    return isinstance(test, EventsTest | VersusTest)


def _served(tests: Iterable[TestState]) -> float | None:
    """Events of the revision since the rollout began, by the metric that counts most of them."""
    tallies = [one.tally for test in tests for one in (test.events, test.versus) if one is not None]
    return max((tally.served for tally in tallies), default=None)


def _assess_one(
    test: Test,
    known: TestState,
    answers: Mapping[Query, Answer],
    *,
    step: int,
    moment: Moment,
) -> TestState:
    if known.finding.outcome is Outcome.FAIL:
        return known
    missing = Failure(FailureKind.UNAVAILABLE, "was not asked")
    answers = {query: answers.get(query, missing) for query in test.queries}
    now = moment.now
    match test:
        case EventsTest():
            events = known.events or EventsState()
            events, finding = assess_events(test, events, answers, step=step, now=now)
            return replace(known, finding=finding, events=events)
        case VersusTest():
            versus = known.versus or VersusState()
            versus, finding = assess_versus(test, versus, answers, step=step, now=now)
            return replace(known, finding=finding, versus=versus)
        case ValueTest():
            limit, finding = assess_value(test, known.limit or LimitState(), answers, moment)
            return replace(known, finding=finding, limit=limit)
        case ComparisonTest():
            limit, finding = assess_comparison(test, known.limit or LimitState(), answers, moment)
            return replace(known, finding=finding, limit=limit)
        case Unusable():
            return replace(known, finding=unanswered(test.name, test.failure, now))
        case _:
            assert_never(test)
