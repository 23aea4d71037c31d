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
from model_operator.core.httproute import read_mark, read_weights
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
        rolled_back=(*_rolled_back(records, stable), *_left(store, subject, records, stable)),
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

    The Service for clients inside the cluster follows each change of roles, and a record's
    `promotedTime` comes after it. Records are kept without statuses by some backups; then the
    Service alone tells, and without it the route.
    """
    key = subject.key
    statuses = {name: read_record(manifest) for name, manifest in records.items()}
    promoted = {name for name, status in statuses.items() if status.promoted_time}
    selected = _selected(store.get("Service", key.namespace, key.name), subject)
    back = _taken_back(store, subject, selected, promoted)
    if back is not None:
        return back
    if selected in promoted:
        return selected
    standing = [name for name in promoted if _stands(statuses[name])]
    if standing:
        return max(standing, key=lambda name: parse_time(statuses[name].promoted_time or ""))
    if selected in records:
        return selected
    route = store.get("HTTPRoute", key.namespace, key.name)
    if route is None or controller_uid(route) != subject.parent.uid:
        return None
    weights = {name: weight for name, weight in read_weights(route).items() if name in records}
    return max(weights, key=lambda name: weights[name]) if weights else None


def _taken_back(
    store: Store, subject: Subject, selected: str | None, promoted: set[str]
) -> str | None:
    """Whom a bake's rollback gave the traffic to, whose status was never written."""
    route = store.get("HTTPRoute", subject.key.namespace, subject.key.name)
    if route is None or controller_uid(route) != subject.parent.uid or not read_mark(route):
        return None
    weighted = {name for name, weight in read_weights(route).items() if weight > 0}
    if selected in weighted or len(weighted) != 1:
        return None
    (revision,) = weighted
    return revision if revision in promoted else None


def _left(
    store: Store, subject: Subject, records: dict[str, Manifest], stable: str
) -> tuple[RolledBackStatus, ...]:
    """Whom such a rollback took off: nothing but the route and the Service tell of it."""
    key = subject.key
    selected = _selected(store.get("Service", key.namespace, key.name), subject)
    route = store.get("HTTPRoute", key.namespace, key.name)
    mark = read_mark(route) if route is not None else None
    if selected is None or selected == stable or selected not in records or mark is None:
        return ()
    return (RolledBackStatus(revision=selected, reason="Recovered", time=mark),)


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


def _selected(service: Manifest | None, subject: Subject) -> str | None:
    if service is None or controller_uid(service) != subject.parent.uid:
        return None
    revision: str | None = service["spec"].get("selector", {}).get(REVISION)
    return revision


def _stands(record: ModelRevisionStatus) -> bool:
    """Whether a promotion was not taken back."""
    if record.promoted_time is None:
        return False
    gone = record.rolled_back_time
    return gone is None or parse_time(gone) < parse_time(record.promoted_time)


def _rolled_back(records: dict[str, Manifest], stable: str) -> tuple[RolledBackStatus, ...]:
    """Revisions that must not be tried again by themselves, the latest last."""
    entries = [
        RolledBackStatus(
            revision=name,
            reason=record.rolled_back_reason or "RolledBack",
            time=record.rolled_back_time,
        )
        for name, manifest in records.items()
        if name != stable and (record := read_record(manifest)).rolled_back_time
        if not _stands(record)
    ]
    entries.sort(key=lambda entry: parse_time(entry.time))
    return tuple(entries[1 - ROLLED_BACK_LIMIT :])
