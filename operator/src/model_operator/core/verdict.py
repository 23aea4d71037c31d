"""What an analysis makes of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What is known about the health of a revision."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    INSUFFICIENT = "insufficient"
    ERROR = "error"


HEALTHY = "Healthy"
ANALYSIS_FAILED = "AnalysisFailed"
INSUFFICIENT_DATA = "InsufficientData"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one metric.

    Attributes:
        metric: Its name.
        outcome: What is known.
        reason: CamelCase, one of the reasons of a `Verdict`.
        value: What was measured, None when nothing was.
        threshold: What it was held against, None when there was nothing to hold it against.
        samples: How many events (for counts) or looks (for numbers) the value is made of.
        message: For people; names metric, value, threshold and sample count.
        time: When it was found, seconds since the epoch.
    """

    metric: str
    outcome: Outcome
    reason: str
    value: float | None
    threshold: float | None
    samples: int
    message: str
    time: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the metrics say together.

    Attributes:
        outcome: Any failure makes it a failure; else any error an error; else any gap
            insufficient.
        reason: ``Healthy``, ``AnalysisFailed``, ``InsufficientData``, ``MetricsUnavailable`` or
            ``ConfigurationError``.
        message: For people: the messages of the findings that decided.
        findings: One for each metric, in the order of the spec.
    """

    outcome: Outcome
    reason: str
    message: str
    findings: tuple[Finding, ...]
