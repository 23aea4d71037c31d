"""From an analysis as it is written to what is asked and tested."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from model_operator.api.samples import Failure, FailureKind, Query
from model_operator.api.types import Analysis, Metric
from model_operator.core.default_analysis import DEFAULT_METRICS
from model_operator.core.events import EventsTest
from model_operator.core.limits import ComparisonTest, ValueTest
from model_operator.core.templates import TemplateError, render

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


Test: TypeAlias = EventsTest | ValueTest | ComparisonTest | Unusable


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
    metrics = analysis.metrics or DEFAULT_METRICS
    counting = sum(metric.events is not None for metric in metrics)
    alpha = (1 - analysis.confidence.value) / max(counting, 1)
    return Plan(
        interval_s=analysis.interval.seconds,
        tests=tuple(_compile(metric, analysis.metric_source, subject, alpha) for metric in metrics),
        fingerprints=tuple(_fingerprint(metric, analysis.metric_source) for metric in metrics),
    )


def _compile(metric: Metric, default_source: str, subject: Subject, alpha: float) -> Test:
    source = metric.metric_source or default_source
    try:
        if metric.events is not None:
            ask = _Asker(metric.name, source, subject)
            return EventsTest(
                name=metric.name,
                bad=ask(metric.events.bad),
                total=ask(metric.events.total),
                limit=metric.events.max_rate.value,
                min_events=metric.events.min_events,
                alpha=alpha,
            )
        if metric.value is not None:
            ask = _Asker(metric.name, source, subject, metric.value.window.seconds)
            return ValueTest(
                name=metric.name,
                query=ask(metric.value.query),
                lowest=metric.value.min.value if metric.value.min else None,
                highest=metric.value.max.value if metric.value.max else None,
                window_s=metric.value.window.seconds,
            )
        if metric.comparison is not None:
            ask = _Asker(metric.name, source, subject, metric.comparison.window.seconds)
            candidate = ask(metric.comparison.query)
            stable = ask.of_stable(metric.comparison.query)
            if stable is not None and candidate.text == stable.text:
                return Unusable(metric.name, _COMPARES_WITH_ITSELF)
            return ComparisonTest(
                name=metric.name,
                candidate=candidate,
                stable=stable,
                increase=metric.comparison.max_increase_percent / 100,
                window_s=metric.comparison.window.seconds,
            )
    except TemplateError as error:
        return Unusable(metric.name, Failure(FailureKind.CONFIGURATION, str(error)))
    raise AssertionError(f"metric {metric.name} has no member; parsing refuses that")


@dataclass(frozen=True, slots=True)
class _Asker:
    metric: str
    source: str
    subject: Subject
    window_s: float = 0.0

    def __call__(self, template: str) -> Query:
        return self._query(template, self.subject.revision)

    def of_stable(self, template: str) -> Query | None:
        return self._query(template, self.subject.stable) if self.subject.stable else None

    def _query(self, template: str, revision: str) -> Query:
        values = {
            "namespace": self.subject.namespace,
            "name": self.subject.name,
            "revision": revision,
            # A name that no object can have: with nothing beside it, there is no data.
            "stable": self.subject.stable or "-",
        }
        if self.window_s:
            values["window"] = f"{round(self.window_s * 1000)}ms"
        return Query(
            metric=self.metric,
            text=render(template, values),
            source=self.source,
            namespace=self.subject.namespace,
            revision=revision,
            window_s=self.window_s,
        )


def _fingerprint(metric: Metric, default_source: str) -> str:
    text = repr((metric, metric.metric_source or default_source))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
