"""What an analysis makes of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from model_operator.api.samples import Failure, FailureKind


class Outcome(StrEnum):
    """What is known about the health of a revision."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    INSUFFICIENT = "insufficient"
    ERROR = "error"


HEALTHY = "Healthy"
ANALYSIS_FAILED = "AnalysisFailed"
INSUFFICIENT_DATA = "InsufficientData"
BREACH_UNCONFIRMED = "BreachUnconfirmed"


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
        collecting: For an insufficient one: evidence came in at this look, there is only too little
            of it yet. Samples that are missing altogether are another matter.
    """

    metric: str
    outcome: Outcome
    reason: str
    value: float | None
    threshold: float | None
    samples: int
    message: str
    time: float
    collecting: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the metrics say together.

    Attributes:
        outcome: Any failure makes it a failure; else any error an error; else any gap
            insufficient.
        reason: ``Healthy``, ``AnalysisFailed``, ``InsufficientData``, ``BreachUnconfirmed``,
            ``MetricsUnavailable`` or ``ConfigurationError``.
        message: For people: the messages of the findings that decided.
        findings: One for each metric, in the order of the spec.
        collecting: For an insufficient one: every metric that lacks evidence got some at this look.
            The time that `onInsufficient.hold` limits begins anew: a model with few requests is
            slow to judge, and not for that reason bad.
    """

    outcome: Outcome
    reason: str
    message: str
    findings: tuple[Finding, ...]
    collecting: bool = False


def unanswered(metric: str, failure: Failure, now: float) -> Finding:
    """The finding of a metric whose source failed, or that cannot be asked as it is written."""
    return Finding(
        metric=metric,
        outcome=Outcome.ERROR,
        reason=failure.kind.value,
        value=None,
        threshold=None,
        samples=0,
        message=f"{metric}: {failure.message}",
        time=now,
    )


def no_data(metric: str, what: str, now: float) -> Finding:
    """The finding of a metric of which there is nothing yet that can be judged."""
    return Finding(
        metric=metric,
        outcome=Outcome.INSUFFICIENT,
        reason=INSUFFICIENT_DATA,
        value=None,
        threshold=None,
        samples=0,
        message=f"{metric}: {what}",
        time=now,
    )


def combine(findings: tuple[Finding, ...]) -> Verdict:
    """Any failure makes it a failure; else any error an error; else any gap insufficient.

    Without findings nothing is known: insufficient.
    """
    if not findings:
        return Verdict(Outcome.INSUFFICIENT, INSUFFICIENT_DATA, "nothing was measured yet", ())
    for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.INSUFFICIENT, Outcome.PASS):
        deciding = [one for one in findings if one.outcome is outcome]
        if deciding:
            break
    # A mistake in the configuration needs a person, so it is named before an outage.
    deciding.sort(key=lambda one: one.reason != FailureKind.CONFIGURATION.value)
    return Verdict(
        outcome=outcome,
        reason=deciding[0].reason,
        message="; ".join(one.message for one in deciding),
        findings=findings,
        collecting=outcome is Outcome.INSUFFICIENT and all(one.collecting for one in deciding),
    )
