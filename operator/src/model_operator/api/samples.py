"""What is asked of a metrics source, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

POD_LABEL = "pod"
"""Tells one pod's counter from another's; both kinds of source set it."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question to one source, with nothing left to fill in.

    Attributes:
        metric: Name of the metric that it is asked for.
        text: PromQL with its templates rendered.
        source: Name of a MetricSource, or ``pods``.
        namespace: Where the ModelDeployment is.
        revision: Whose pods it is about: what the source ``pods`` scrapes.
        window_s: Span that the query looks back over, seconds; 0 for raw counters.
    """

    metric: str
    text: str
    source: str
    namespace: str
    revision: str
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer.

    Attributes:
        labels: Its labels, sorted by name.
        value: Its value; may be NaN or infinite.
    """

    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        """Value of a label, empty when it is not set (as Prometheus has it)."""
        return dict(self.labels).get(name, "")


@dataclass(frozen=True, slots=True)
class Samples:
    """A source's answer. No series means no data, which is no failure of the source.

    Attributes:
        series: The series, in the source's order.
        warnings: What the source remarks about its own answer.
    """

    series: tuple[Series, ...] = ()
    warnings: tuple[str, ...] = ()


class FailureKind(StrEnum):
    """Who has to do something about a query that has no answer."""

    CONFIGURATION = "ConfigurationError"
    """The user or the administrator: asking again cannot help."""
    UNAVAILABLE = "MetricsUnavailable"
    """Nobody, at first: the source may answer later."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a query has no answer.

    Attributes:
        kind: Whether asking again can help.
        message: What a person reads.
    """

    kind: FailureKind
    message: str


Answer: TypeAlias = Samples | Failure
