"""From an analysis as it is written to what is asked and tested."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TypeAlias

from model_operator.api.samples import Failure, FailureKind, Query
from model_operator.api.types import Analysis, Comparison, Events, Metric, Value
from model_operator.core.default_analysis import DEFAULT_METRICS, EventsAgainstStable
from model_operator.core.events import EventsTest
from model_operator.core.limits import ComparisonTest, ValueTest
from model_operator.core.templates import TemplateError, render
from model_operator.core.versus import VersusTest

_RANGE = re.compile(r"\[\s*(?:\d|\{\{)")
"""Of a selector, such as ``[1m]`` or ``[{{ window }}]``."""

_COMPARES_WITH_ITSELF = Failure(
    FailureKind.CONFIGURATION,
    "the query does not mention {{ revision }}: it would compare a number with itself",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is judged.

    Attributes:
        namespace: Namespace of the ModelDeployment.
        name: Name of the ModelDeployment.
        revision: Name of the revision that is judged.
        stable: Name of the revision that serves beside it now; None in a bake and on a first
            create. Comparisons are then made with what was measured of stable before.
    """

    namespace: str
    name: str
    revision: str
    stable: str | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A metric that cannot be asked as it is written.

    Attributes:
        name: The metric's name.
        failure: Why.
    """

    name: str
    failure: Failure

    @property
    def queries(self) -> tuple[Query, ...]:
        """Nothing."""
        return ()


Test: TypeAlias = EventsTest | VersusTest | ValueTest | ComparisonTest | Unusable


@dataclass(frozen=True, slots=True)
class Plan:
    """An analysis with its queries rendered and its error budget split.

    Attributes:
        interval_s: Time between two looks, seconds.
        tests: One for each metric, in the order of the spec.
        fingerprints: Of each metric's definition: an edited metric begins anew, the others go on.
    """

    interval_s: float
    tests: tuple[Test, ...]
    fingerprints: tuple[str, ...]


def compile_plan(analysis: Analysis, subject: Subject) -> Plan:
    """Render every query and split the error budget.

    The budget is ``1 - confidence`` for the whole rollout. Each `Events` metric gets an equal part
    of it, and spends it over all steps and the bake, because its test runs through all of them.

    A template that cannot be rendered is no exception: `assess` reports it as a finding
    ``ConfigurationError`` of its metric, so that one bad query does not blind the others.
    With no metrics in ``analysis`` the default analysis is compiled.
    """
    metrics: tuple[Metric | EventsAgainstStable, ...] = analysis.metrics or DEFAULT_METRICS
    counting = sum(not isinstance(one, Metric) or one.events is not None for one in metrics)
    alpha = (1 - analysis.confidence.value) / max(counting, 1)
    return Plan(
        interval_s=analysis.interval.seconds,
        tests=tuple(_compile(metric, analysis.metric_source, subject, alpha) for metric in metrics),
        fingerprints=tuple(_fingerprint(metric, analysis.metric_source) for metric in metrics),
    )


def _compile(
    metric: Metric | EventsAgainstStable, default_source: str, subject: Subject, alpha: float
) -> Test:
    try:
        if isinstance(metric, EventsAgainstStable):
            return _versus_test(metric, _Asker(metric.name, default_source, subject), alpha)
        ask = _Asker(metric.name, metric.metric_source or default_source, subject)
        if metric.events is not None:
            return _events_test(metric.events, ask, alpha)
        if metric.value is not None:
            return _value_test(metric.value, ask)
        if metric.comparison is not None:
            return _comparison_test(metric.comparison, ask)
    except TemplateError as error:
        return Unusable(metric.name, Failure(FailureKind.CONFIGURATION, str(error)))
    raise AssertionError(f"metric {metric.name} has no member; parsing refuses that")


def _events_test(events: Events, ask: _Asker, alpha: float) -> Test:
    return EventsTest(
        name=ask.metric,
        bad=ask.of_candidate(events.bad),
        total=ask.of_candidate(events.total),
        limit=events.max_rate.value,
        min_events=events.min_events,
        alpha=alpha,
    )


def _versus_test(metric: EventsAgainstStable, ask: _Asker, alpha: float) -> Test:
    stable_bad, stable_total = ask.of_stable(metric.bad), ask.of_stable(metric.total)
    return VersusTest(
        name=ask.metric,
        bad=ask.of_candidate(metric.bad),
        total=ask.of_candidate(metric.total),
        stable=(stable_bad, stable_total) if stable_bad and stable_total else None,
        tolerance=metric.tolerance,
        min_events=metric.min_events,
        alpha=alpha,
    )


def _value_test(value: Value, ask: _Asker) -> Test:
    return ValueTest(
        name=ask.metric,
        query=ask.of_candidate(value.query, value.window.seconds),
        lowest=value.min.value if value.min else None,
        highest=value.max.value if value.max else None,
        window_s=value.window.seconds,
        counted=_RANGE.search(value.query) is not None,
    )


def _comparison_test(comparison: Comparison, ask: _Asker) -> Test:
    window_s = comparison.window.seconds
    candidate = ask.of_candidate(comparison.query, window_s)
    stable = ask.of_stable(comparison.query, window_s)
    if stable is not None and candidate.text == stable.text:
        return Unusable(ask.metric, _COMPARES_WITH_ITSELF)
    return ComparisonTest(
        name=ask.metric,
        candidate=candidate,
        stable=stable,
        increase=comparison.max_increase_percent / 100,
        window_s=window_s,
        counted=_RANGE.search(comparison.query) is not None,
    )


@dataclass(frozen=True, slots=True)
class _Asker:
    metric: str
    source: str
    subject: Subject

    def of_candidate(self, template: str, window_s: float = 0.0) -> Query:
        return self._query(template, self.subject.revision, window_s)

    def of_stable(self, template: str, window_s: float = 0.0) -> Query | None:
        if self.subject.stable is None:
            return None
        return self._query(template, self.subject.stable, window_s)

    def _query(self, template: str, revision: str, window_s: float) -> Query:
        values = {
            "namespace": self.subject.namespace,
            "name": self.subject.name,
            "revision": revision,
            # A name that no object can have: with nothing beside it, there is no data.
            "stable": self.subject.stable or "-",
        }
        if window_s:
            values["window"] = f"{round(window_s * 1000)}ms"
        return Query(
            metric=self.metric,
            text=render(template, values),
            source=self.source,
            namespace=self.subject.namespace,
            revision=revision,
            window_s=window_s,
        )


def _fingerprint(metric: Metric | EventsAgainstStable, default_source: str) -> str:
    return hashlib.sha256(repr((metric, default_source)).encode()).hexdigest()[:16]
