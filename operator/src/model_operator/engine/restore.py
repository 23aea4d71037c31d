"""The roles again, when the status is lost: as after a restore from a backup without statuses.

Without it a model that serves would be taken for a first create, and a bad revision be tried anew.
"""

from __future__ import annotations

import logging

from model_operator.adapters.ownership import controller_uid
from model_operator.api.labels import REVISION
from model_operator.api.times import parse_time
from model_operator.api.types import (
    ModelDeploymentStatus,
    ModelRevisionStatus,
    RequestStatus,
    RolledBackStatus,
    StableStatus,
)
from model_operator.core.httproute import read_rollback, read_weights
from model_operator.core.mark import Mark
from model_operator.core.rollback import ROLLED_BACK_LIMIT
from model_operator.engine.evidence import read_record
from model_operator.engine.snapshot import Subject, read_request
from model_operator.engine.store import Manifest, Store

logger = logging.getLogger(__name__)


def with_roles(store: Store, subject: Subject) -> Subject:
    """The ModelDeployment with the roles that its ModelRevisions tell of, if it lost its own."""
    status = subject.status
    if status.stable is not None or status.candidate is not None:
        return subject
    records = _records(store, subject)
    stable = _stable(store, subject, records)
    if stable is None:
        return subject
    logger.warning("%s has lost its status; %s is stable by its record", subject.key, stable)
    digest = records[stable]["spec"]["model"]["digest"]
    restored = ModelDeploymentStatus(
        stable=StableStatus(revision=stable, digest=digest),
        rolled_back=_rolled_back(records, stable, _unrecorded(store, subject, records, stable)),
        last_request=status.last_request or _answered(subject),
    )
    return subject.with_status(restored)


def _records(store: Store, subject: Subject) -> dict[str, Manifest]:
    """Own ModelRevisions by name; a namesake's that was deleted are none."""
    return {
        manifest["metadata"]["name"]: manifest
        for manifest in store.children(subject.key, "ModelRevision")
        if controller_uid(manifest) == subject.parent.uid
    }


def _stable(store: Store, subject: Subject, records: dict[str, Manifest]) -> str | None:
    """The revision that users are on.

    The Service for clients inside the cluster follows each change of roles, but for a rollback in
    the bake whose status was not written. Without it the records tell, and without their statuses,
    which some backups leave out, the route.
    """
    selected = _taken_back(store, subject) or _selected(store, subject)
    if selected in records:
        return selected
    statuses = {name: read_record(manifest) for name, manifest in records.items()}
    standing = {name: status for name, status in statuses.items() if _stands(status)}
    if standing:
        return max(standing, key=lambda name: parse_time(standing[name].promoted_time or ""))
    weights = {r: weight for r, weight in _weights(store, subject).items() if r in records}
    return max(weights, key=lambda name: weights[name]) if weights else None


def _taken_back(store: Store, subject: Subject) -> str | None:
    """Whom a bake's rollback gave the traffic to, whose status was never written."""
    mark = _last_rollback(store, subject)
    weights = _weights(store, subject)
    if mark is None or mark.revision != _selected(store, subject) or mark.revision in weights:
        return None
    return next(iter(weights)) if len(weights) == 1 else None


def _last_rollback(store: Store, subject: Subject) -> Mark | None:
    """The last rollback that the route remembers."""
    route = _own(store, subject, "HTTPRoute")
    return read_rollback(route) if route is not None else None


def _weights(store: Store, subject: Subject) -> dict[str, int]:
    """Percent by revision as the route has it, of those that have any."""
    route = _own(store, subject, "HTTPRoute")
    weights = read_weights(route) if route is not None else {}
    return {revision: weight for revision, weight in weights.items() if weight > 0}


def _selected(store: Store, subject: Subject) -> str | None:
    """Whom clients inside the cluster reach."""
    service = _own(store, subject, "Service")
    return service["spec"].get("selector", {}).get(REVISION) if service is not None else None


def _own(store: Store, subject: Subject, kind: str) -> Manifest | None:
    """The ModelDeployment's object of its own name."""
    live = store.get(kind, subject.key.namespace, subject.key.name)
    return live if live is not None and controller_uid(live) == subject.parent.uid else None


def _answered(subject: Subject) -> RequestStatus | None:
    """The request that is there counts as done: it may be an old one."""
    request = read_request(subject.manifest)
    if request is None:
        return None
    return RequestStatus(
        id=request.id,
        action=request.action,
        revision=request.revision,
        result="refused: the status was lost, and it may have been done",
        time=subject.manifest["metadata"]["creationTimestamp"],
    )


def _stands(record: ModelRevisionStatus) -> bool:
    """Whether a promotion was not taken back."""
    if record.promoted_time is None:
        return False
    gone = record.rolled_back_time
    return gone is None or parse_time(gone) < parse_time(record.promoted_time)


def _rolled_back(
    records: dict[str, Manifest], stable: str, unrecorded: RolledBackStatus | None
) -> tuple[RolledBackStatus, ...]:
    """Revisions that must not be tried again by themselves, the latest last."""
    entries = [
        RolledBackStatus(
            revision=name,
            reason=record.rolled_back_reason or "RolledBack",
            time=record.rolled_back_time,
        )
        for name, manifest in records.items()
        if name != stable and (record := read_record(manifest)).rolled_back_time
        if not _stands(record) and (unrecorded is None or unrecorded.revision != name)
    ]
    entries.sort(key=lambda entry: parse_time(entry.time))
    if unrecorded is not None:
        entries.append(unrecorded)
    return tuple(entries[-ROLLED_BACK_LIMIT:])


def _unrecorded(
    store: Store, subject: Subject, records: dict[str, Manifest], stable: str
) -> RolledBackStatus | None:
    """The last rollback, when nothing but the route tells of it."""
    mark = _last_rollback(store, subject)
    if mark is None or mark.revision == stable or mark.revision not in records:
        return None
    record = read_record(records[mark.revision])
    # recorded already, or tried again since and promoted
    for later in (record.rolled_back_time, record.promoted_time):
        if later is not None and parse_time(later) >= parse_time(mark.time):
            return None
    return RolledBackStatus(
        revision=mark.revision, reason=mark.reason, message=mark.message, time=mark.time
    )
