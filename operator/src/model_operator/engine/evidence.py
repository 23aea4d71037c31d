"""The record of a revision: the samples, thresholds and verdicts behind its rollout."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from model_operator.api.parse import parse_model_revision, to_manifest
from model_operator.api.times import format_time
from model_operator.api.types import Evidence, ModelRevisionStatus, replace
from model_operator.core.decision import (
    FirstFailed,
    Promoted,
    RolledBack,
    StepEntered,
    Transition,
)
from model_operator.core.observed import Judgement
from model_operator.core.verdict import Finding
from model_operator.engine.store import Manifest

EVIDENCE_LIMIT: Final = 64
_MESSAGE_LIMIT: Final = 1024


def read_record(manifest: Manifest) -> ModelRevisionStatus:
    """The record that a ModelRevision carries."""
    return parse_model_revision(manifest).status


def with_record(manifest: Manifest, status: ModelRevisionStatus) -> Manifest:
    """A ModelRevision with another record."""
    return {**manifest, "status": to_manifest(status)}


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


def with_transitions(
    status: ModelRevisionStatus, revision: str, transitions: Iterable[Transition], now: float
) -> ModelRevisionStatus:
    """The record with what happened to this revision."""
    for transition in transitions:
        match transition:
            case Promoted(promoted, _) if promoted == revision:
                status = replace(status, promoted_time=format_time(now))
            case RolledBack(gone, reason, _) if gone == revision:
                status = replace(
                    status, rolled_back_time=format_time(now), rolled_back_reason=reason
                )
            case _:
                pass
    return status


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
