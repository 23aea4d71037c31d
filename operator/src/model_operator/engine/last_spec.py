"""The last spec that could be acted on, where a restart finds it again (docs/adr/0008)."""

from __future__ import annotations

import msgspec

from model_operator.adapters.ownership import controller_uid
from model_operator.api.labels import LAST_SPEC
from model_operator.api.parse import InvalidSpec
from model_operator.engine.snapshot import Subject, Wanted, read_wanted
from model_operator.engine.store import Manifest, Store


def write_spec(service: Manifest, spec: Manifest) -> Manifest:
    """The stable revision's Service with the spec that is acted on."""
    text = msgspec.json.encode(spec, order="sorted").decode()
    return {**service, "metadata": {**service["metadata"], "annotations": {LAST_SPEC: text}}}


def read_spec(store: Store, subject: Subject) -> Wanted | None:
    """The spec that was acted on last; None when none was, or when it cannot be used any more."""
    service = store.get("Service", subject.key.namespace, subject.key.name)
    if service is None or controller_uid(service) != subject.parent.uid:
        return None
    text = (service["metadata"].get("annotations") or {}).get(LAST_SPEC)
    if not text:
        return None
    try:
        spec = msgspec.json.decode(text, type=dict)
        return read_wanted({**subject.manifest, "spec": spec})
    except (msgspec.DecodeError, InvalidSpec):
        return None
