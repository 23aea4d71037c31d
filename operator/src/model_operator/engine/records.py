"""Keeps the ModelRevisions: evidence as it comes, and no more of them than asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from model_operator.adapters.kube import MODEL_REVISION, ConflictError, Kube
from model_operator.adapters.ownership import controller_uid
from model_operator.api.parse import to_manifest
from model_operator.api.types import ModelDeploymentStatus, ModelRevisionStatus
from model_operator.core.decision import Transition
from model_operator.core.observed import Judgement
from model_operator.core.preflight import uncompared
from model_operator.core.signatures import Signatures
from model_operator.engine.analyst import Analyst
from model_operator.engine.evidence import (
    ends_step,
    read_record,
    with_findings,
    with_outcome,
    with_signature,
    with_tests,
)
from model_operator.engine.snapshot import Subject, Wanted
from model_operator.engine.store import Key, Manifest, Store

TESTS_INTERVAL_S: Final = 30.0
"""The state of running tests is written at least this often: a restart loses no more than that."""


@dataclass(frozen=True, slots=True)
class _Note:
    """What is to be written into a record.

    Attributes:
        findings: Whether the findings are written too, beside the tests' state.
    """

    judgement: Judgement
    tests: dict[str, Any]
    findings: bool


@dataclass(slots=True)
class _Noted:
    """What was noted last of one ModelDeployment.

    Attributes:
        time_s: When, seconds since the epoch.
        pending: Notes that are not written yet, the oldest first.
    """

    judgement: Judgement | None = None
    time_s: float = 0.0
    pending: list[_Note] = field(default_factory=list)


@dataclass(slots=True)
class Recorder:
    """Writes the status of ModelRevisions, after all that traffic depends on.

    Attributes:
        clock: Seconds since the epoch.
    """

    kube: Kube
    store: Store
    analyst: Analyst
    clock: Callable[[], float]
    _noted: dict[Key, _Noted] = field(default_factory=dict)

    def tests(self, key: Key, revision: str) -> dict[str, Any]:
        """State of a revision's tests as it was recorded last."""
        manifest = self.store.get("ModelRevision", key.namespace, revision)
        if manifest is None:
            return {}
        tests: dict[str, Any] = (manifest.get("status") or {}).get("tests") or {}
        return tests

    def note(
        self, key: Key, judgement: Judgement | None, transitions: Iterable[Transition]
    ) -> None:
        """Keep what a decision was made of, until it is written.

        The findings are kept on a change of verdict and at the end of a step, the state of running
        tests every `TESTS_INTERVAL_S`.
        """
        if judgement is None:
            return
        noted = self._noted.get(key)
        if noted is None:
            noted = self._noted[key] = _Noted()
            if self._is_recorded(key, judgement):  # by an operator before this one
                noted.judgement, noted.time_s = judgement, self.clock()
        findings = not _same_verdict(noted.judgement, judgement) or ends_step(transitions)
        if findings or self.clock() - noted.time_s >= TESTS_INTERVAL_S:
            noted.judgement, noted.time_s = judgement, self.clock()
            noted.pending.append(_Note(judgement, self.analyst.state(key) or {}, findings))

    async def write(self, subject: Subject, wanted: Wanted, signatures: Signatures) -> float | None:
        """Write what was noted and how rollouts ended; delete records that are too old.

        Returns:
            Seconds until something is due again, None when nothing is.
        """
        key, status = subject.key, subject.status
        noted = self._noted.get(key) or _Noted()
        for manifest in self.store.children(key, "ModelRevision"):
            name = manifest["metadata"]["name"]
            record = read_record(manifest)
            stable = status.stable.revision if status.stable else None
            reason = uncompared(signatures, name, stable)
            changed = with_outcome(record, name, status, self.clock(), uncompared=reason)
            changed = with_signature(changed, signatures.known.get(name))
            for note in noted.pending:
                if note.judgement.trial.revision == name:
                    changed = with_tests(changed, note.tests)
                    changed = with_findings(changed, note.judgement) if note.findings else changed
            if changed != record:
                await self._write(manifest, changed)
        noted.pending.clear()
        await self._prune(subject, wanted, status)
        if self.analyst.judgement(key) is None:
            return None
        return max(1.0, noted.time_s + TESTS_INTERVAL_S - self.clock())

    def forget(self, key: Key) -> None:
        """Drop what is known of a ModelDeployment."""
        self._noted.pop(key, None)

    def _is_recorded(self, key: Key, judgement: Judgement) -> bool:
        """Whether the last evidence of a revision is this verdict at this step."""
        manifest = self.store.get("ModelRevision", key.namespace, judgement.trial.revision)
        if manifest is None:
            return False
        record = read_record(manifest)
        return (
            record.verdict == judgement.verdict.outcome.value
            and bool(record.evidence)
            and record.evidence[-1].step == judgement.trial.level
        )

    async def _write(self, manifest: Manifest, record: ModelRevisionStatus) -> None:
        try:
            self.store.put(await self.kube.replace_status(manifest, to_manifest(record)))
        except ConflictError:
            metadata = manifest["metadata"]
            name = metadata["name"]
            self.store.put(await self.kube.get(MODEL_REVISION, metadata["namespace"], name))
            raise

    async def _prune(self, subject: Subject, wanted: Wanted, status: ModelDeploymentStatus) -> None:
        """Delete the oldest records beyond the limit, none that is still needed."""
        needed = _needed(status) | {wanted.target.revision}
        old = [
            manifest
            for manifest in self.store.children(subject.key, "ModelRevision")
            if manifest["metadata"]["name"] not in needed
            and controller_uid(manifest) == subject.parent.uid
            and self.store.get("Deployment", subject.key.namespace, manifest["metadata"]["name"])
            is None
        ]
        old.sort(key=lambda manifest: manifest["metadata"]["creationTimestamp"], reverse=True)
        for manifest in old[wanted.spec.revision_history_limit :]:
            metadata = manifest["metadata"]
            await self.kube.delete(
                MODEL_REVISION, metadata["namespace"], metadata["name"], uid=metadata["uid"]
            )


def _same_verdict(one: Judgement | None, other: Judgement) -> bool:
    return (
        one is not None
        and one.trial == other.trial
        and (one.verdict.outcome, one.verdict.reason)
        == (other.verdict.outcome, other.verdict.reason)
    )


def _needed(status: ModelDeploymentStatus) -> set[str]:
    roles = (status.stable, status.candidate, status.former)
    needed = {role.revision for role in roles if role is not None}
    return needed | {entry.revision for entry in status.rolled_back}
