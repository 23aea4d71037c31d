"""The invariants about the ends of rollouts: each is told, and none is for want of evidence.

`history_invariants.check` asks them together with all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from hack.demo.history import StatusSeen
from model_operator.api.times import parse_time
from model_operator.api.types import ModelDeploymentStatus, RolledBackStatus
from tests.e2e.witness import WATCH_LAG_S, Witness

WRITTEN_S: Final = 5.0
"""Records and events are written last, after everything that traffic depends on."""

FROM_ANALYSIS: Final = "AnalysisFailed"
NO_DATA: Final = "InsufficientData"
BLIND: Final = "MetricsUnavailable"
OF_METRICS: Final = frozenset(
    {FROM_ANALYSIS, NO_DATA, BLIND, "BreachUnconfirmed", "ConfigurationError"}
)
"""Reasons that only metrics can give; all others are seen of pods, or asked for."""


def i10_every_rollback_is_told(witness: Witness) -> Iterator[str]:
    """Each rollback has a reason, a record, evidence and an event."""
    for before, seen in witness.changes():
        known = {(entry.revision, entry.time) for entry in before.status.rolled_back}
        for entry in seen.status.rolled_back:
            if (entry.revision, entry.time) not in known:
                yield from _rollback_is_told(witness, seen.at, entry)


def _rollback_is_told(witness: Witness, at: float, entry: RolledBackStatus) -> Iterator[str]:
    revision = entry.revision
    if not entry.reason or not entry.message:
        yield f"I10: the rollback of {revision} has no reason or no message"
    if _may_be_unwritten(witness, at):
        return
    record = witness.history.record_of(revision)
    if not record.rolled_back_reason or record.rolled_back_time is None:
        yield f"I10: the record of {revision} does not say that it was rolled back"
    if entry.reason == FROM_ANALYSIS and all(e.verdict != "fail" for e in record.evidence):
        yield f"I10: {revision} was rolled back by analysis without failing evidence"
    if not witness.announced("RolledBack", revision):
        yield f"I10: no event told that {revision} was rolled back"


def i10_every_other_end_is_told(witness: Witness) -> Iterator[str]:
    """Each promotion has a record and an event, each that gave way an event."""
    for before, seen in witness.changes():
        old, stable = before.status.candidate, seen.status.stable
        if old is None or not _is_over(seen.status, old.revision):
            continue
        if _may_be_unwritten(witness, seen.at):
            continue
        if stable is None or stable.revision != old.revision:
            if not witness.announced("Superseded", old.revision):
                yield f"I10: no event told that {old.revision} gave way"
            continue
        if witness.history.record_of(old.revision).promoted_time is None:
            yield f"I10: the record of {old.revision} does not say when it was promoted"
        if not witness.announced("Promoted", old.revision):
            yield f"I10: no event told that {old.revision} was promoted"


def _is_over(status: ModelDeploymentStatus, revision: str) -> bool:
    """Whether a revision is candidate no more, without having been rolled back."""
    candidate = status.candidate.revision if status.candidate is not None else ""
    return candidate != revision and revision not in {e.revision for e in status.rolled_back}


def _may_be_unwritten(witness: Witness, at: float) -> bool:
    """Whether the history ended, or the operator may have died, before all could be written."""
    return witness.history.end - at < WRITTEN_S or witness.is_disturbed(at, WRITTEN_S)


def i11_missing_evidence_is_no_failure(witness: Witness) -> Iterator[str]:
    """No rollback is for metrics that nobody could read, or that were missing for too short."""
    for before, seen in witness.changes():
        known = {(entry.revision, entry.time) for entry in before.status.rolled_back}
        for entry in seen.status.rolled_back:
            if (entry.revision, entry.time) in known or entry.reason not in OF_METRICS:
                continue
            if before.status.rollout.reason == BLIND and not _failed_since(witness, before, entry):
                yield (
                    f"I11: {entry.revision} was rolled back for {entry.reason} "
                    f"{witness.clock(seen.at)}, while its metrics were unavailable"
                )
            if entry.reason == NO_DATA:
                yield from _held_long_enough(witness, before, entry)


def _failed_since(witness: Witness, before: StatusSeen, entry: RolledBackStatus) -> bool:
    """Whether the metrics came back, and the first that they said was a failure."""
    since = parse_time(before.status.rollout.since_time or entry.time)
    return entry.reason == FROM_ANALYSIS and any(
        evidence.verdict == "fail" and parse_time(evidence.time) >= since
        for evidence in witness.history.record_of(entry.revision).evidence
    )


def _held_long_enough(
    witness: Witness, before: StatusSeen, entry: RolledBackStatus
) -> Iterator[str]:
    candidate, at = before.status.candidate, parse_time(entry.time)
    since = candidate.insufficient_since_time if candidate is not None else None
    missing_s = at - parse_time(since) if since is not None else 0.0
    digest = candidate.digest if candidate is not None else ""
    applied = [a for a in witness.history.applied if a.digest == digest and a.at <= at]
    hold_s = applied[-1].hold_s if applied else math.inf
    if missing_s < hold_s - WATCH_LAG_S:
        yield (
            f"I11: {entry.revision} was rolled back after {missing_s:.1f} s without evidence, "
            f"its spec says {hold_s:g} s"
        )
