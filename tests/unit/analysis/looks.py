"""A rollout's analysis from look to look, through the public functions and a JSON round trip."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from model_operator.api.samples import Answer, Query, Samples, Series
from model_operator.api.types import (
    Analysis,
    Comparison,
    Decimal,
    Duration,
    Events,
    Metric,
    Value,
)
from model_operator.core.analysis import (
    AnalysisState,
    Subject,
    assess,
    compile_plan,
    due,
    state_from_json,
    state_to_json,
)
from model_operator.core.verdict import Verdict

SUBJECT = Subject("vision", "digits", "digits-new", "digits-old")
IN_A_BAKE = Subject("vision", "digits", "digits-new", None)


def events(name: str = "errors", *, max_rate: str = "0.01", min_events: int = 50) -> Metric:
    return Metric(
        name=name,
        type="Events",
        events=Events(
            bad=f'{name}_bad{{r="{{{{ revision }}}}"}}',
            total=f'{name}_total{{r="{{{{ revision }}}}"}}',
            max_rate=Decimal(max_rate),
            min_events=min_events,
        ),
    )


def value(
    name: str = "latency",
    *,
    highest: str | None = None,
    lowest: str | None = None,
    window: str = "60s",
) -> Metric:
    return Metric(
        name=name,
        type="Value",
        value=Value(
            query=f'{name}{{r="{{{{ revision }}}}"}}',
            max=Decimal(highest) if highest else None,
            min=Decimal(lowest) if lowest else None,
            window=Duration(window),
        ),
    )


def comparison(name: str = "versus", *, increase: int = 20, window: str = "60s") -> Metric:
    return Metric(
        name=name,
        type="Comparison",
        comparison=Comparison(
            query=f'{name}{{r="{{{{ revision }}}}"}}',
            max_increase_percent=increase,
            window=Duration(window),
        ),
    )


def number(*values: float) -> Samples:
    return Samples(tuple(Series((("n", str(i)),), one) for i, one in enumerate(values)))


def pods(**readings: float) -> Samples:
    return Samples(tuple(Series((("pod", pod),), one) for pod, one in sorted(readings.items())))


@dataclass
class Trial:
    """An analysis under way. Each look answers the queries by the first part of their text."""

    metrics: tuple[Metric, ...]
    subject: Subject = SUBJECT
    interval: str = "5s"
    confidence: str = "0.99"
    step: int = 0
    now: float = 1_800_000_000.0
    state: AnalysisState = field(default_factory=AnalysisState)

    @property
    def analysis(self) -> Analysis:
        return Analysis(
            interval=Duration(self.interval),
            confidence=Decimal(self.confidence),
            metrics=self.metrics,
        )

    def look(self, answer: Callable[[Query], Answer] | Mapping[str, Answer]) -> Verdict:
        """Ask what is due, judge it, restart the operator, and let one interval pass."""
        plan = compile_plan(self.analysis, self.subject)
        find = answer if callable(answer) else _by_prefix(answer)
        answers = {query: find(query) for query in due(plan, self.state, self.now)}
        state, verdict = assess(plan, self.state, answers, step=self.step, now=self.now)
        self.state = state_from_json(json.loads(json.dumps(state_to_json(state), allow_nan=False)))
        assert self.state == state_from_json(state_to_json(state))
        self.now += self.analysis.interval.seconds
        return verdict


def _by_prefix(answers: Mapping[str, Answer]) -> Callable[[Query], Answer]:
    def find(query: Query) -> Answer:
        own = f"{query.text.split('{')[0]}@{query.revision}"
        return answers[own] if own in answers else answers[query.text.split("{")[0]]

    return find


@dataclass
class Pod:
    """The candidate's one pod, which serves evenly while it is looked at."""

    trial: Trial
    bad: float = 0.0
    total: float = 0.0

    def serves(self, looks: int, *, bad: float, total: float) -> Verdict:
        """So many events between each two of so many looks; the last verdict."""
        verdicts = [self.one_look(bad, total) for _ in range(looks)]
        return verdicts[-1]

    def one_look(self, bad: float, total: float) -> Verdict:
        self.bad += bad
        self.total += total
        return self.trial.look({"errors_bad": pods(a=self.bad), "errors_total": pods(a=self.total)})
