"""The record of a revision: the samples, thresholds and verdicts behind its rollout."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from model_operator.api.parse import parse_model_revision
from model_operator.api.plain import from_plain
from model_operator.api.times import format_time
from model_operator.api.types import (
    Evidence,
    ModelDeploymentStatus,
    ModelRevisionStatus,
    Preflight,
    Signature,
    replace,
)
from model_operator.core.decision import (
    FirstFailed,
    Promoted,
    RolledBack,
    StepEntered,
    Transition,
)
from model_operator.core.observed import Judgement
from model_operator.core.preflight import SIGNATURE_UNKNOWN
from model_operator.core.steps import PREFLIGHT
from model_operator.core.verdict import Finding
from model_operator.engine.store import Manifest

EVIDENCE_LIMIT: Final = 64
_MESSAGE_LIMIT: Final = 1024


def read_record(manifest: Manifest) -> ModelRevisionStatus:
    """The record that a ModelRevision carries."""
    return parse_model_revision(manifest).status


def read_signature(manifest: Manifest) -> Signature | None:
    """The signature alone that a ModelRevision carries, as it is read at every reconcile."""
    recorded = (manifest.get("status") or {}).get("signature")
    return from_plain(recorded, Signature) if recorded else None


def with_findings(status: ModelRevisionStatus, judgement: Judgement) -> ModelRevisionStatus:
    """The record with a verdict's findings behind it; the oldest give way."""
    entries = [_entry(finding, judgement) for finding in judgement.verdict.findings]
    return replace(
        status,
        evidence=tuple([*status.evidence, *entries][-EVIDENCE_LIMIT:]),
        verdict=judgement.verdict.outcome.value,
    )


def with_tests(status: ModelRevisionStatus, tests: dict[str, Any]) -> ModelRevisionStatus:
    """The record with the state of the running tests."""
    return replace(status, tests=tests)


def with_outcome(
    record: ModelRevisionStatus,
    revision: str,
    status: ModelDeploymentStatus,
    now: float,
    *,
    uncompared: str | None = None,
) -> ModelRevisionStatus:
    """The record with how the rollout ended, as the ModelDeployment's status has it.

    It follows from the status and not from the moment of the change, so that it is caught up by an
    operator that comes after a crash.

    Args:
        record: As it is.
        revision: Whose it is.
        status: The ModelDeployment's.
        now: Seconds since the epoch.
        uncompared: Why its signature was not compared with stable's; None when it was.
    """
    stable = status.stable
    serves = stable is not None and stable.revision == revision
    if record.preflight is None or (serves and not record.preflight.passed):
        record = replace(record, preflight=_preflight(revision, status, now, uncompared))
    if stable is not None and serves:
        since = stable.since_time or record.promoted_time or format_time(now)
        record = replace(record, promoted_time=since)
    for entry in status.rolled_back:
        if entry.revision == revision:
            record = replace(record, rolled_back_time=entry.time, rolled_back_reason=entry.reason)
    return record


def with_signature(record: ModelRevisionStatus, signature: Signature | None) -> ModelRevisionStatus:
    """The record with what the revision takes and gives, once that is known."""
    return record if record.signature or not signature else replace(record, signature=signature)


def _preflight(
    revision: str, status: ModelDeploymentStatus, now: float, uncompared: str | None
) -> Preflight | None:
    """What was found before the first request; None while it is not over."""
    stable, candidate = status.stable, status.candidate
    if stable is not None and stable.revision == revision:
        return Preflight(passed=True, time=format_time(now))
    if candidate is not None and candidate.revision == revision:
        if candidate.step > PREFLIGHT:
            reason = SIGNATURE_UNKNOWN if uncompared else ""
            return Preflight(
                passed=True, reason=reason, message=uncompared or "", time=format_time(now)
            )
        if status.rollout.state == "Failed":
            why = status.rollout
            return Preflight(
                passed=False, reason=why.reason, message=why.message, time=format_time(now)
            )
    for entry in status.rolled_back:
        if entry.revision == revision:
            return Preflight(
                passed=False, reason=entry.reason, message=entry.message, time=entry.time
            )
    return None


def ends_step(transitions: Iterable[Transition]) -> bool:
    """Whether evidence is written down although the verdict did not change."""
    ends = (StepEntered, Promoted, RolledBack, FirstFailed)
    return any(isinstance(transition, ends) for transition in transitions)


def _entry(finding: Finding, judgement: Judgement) -> Evidence:
    return Evidence(
        metric=finding.metric,
        verdict=finding.outcome.value,
        step=judgement.trial.level,
        percent=judgement.trial.percent,
        time=format_time(finding.time),
        value=_number(finding.value),
        threshold=_number(finding.threshold),
        samples=finding.samples,
        message=finding.message[:_MESSAGE_LIMIT],
    )


def _number(value: float | None) -> str | None:
    """A decimal string, as JSON numbers lose digits and know no infinity."""
    return None if value is None or not math.isfinite(value) else f"{value:.6g}"
