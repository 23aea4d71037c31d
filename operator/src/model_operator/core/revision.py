"""The name of a revision: the ModelDeployment's, and a hash of what makes it another revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASH_LENGTH = 10


def revision_hash(digest: str, server: Mapping[str, Any]) -> str:
    """Hash of exactly what makes a revision: the model's digest and what the user set of `server`.

    NB: it is taken from the manifest as the user wrote it and never from parsed types: a default
    that changes in a newer operator must not start a rollout.

    Args:
        digest: ``spec.model.digest``.
        server: ``spec.server`` of the manifest; fields that are null or empty count as not set.

    Returns:
        10 hexadecimal digits.
    """
    set_by_user = {key: value for key, value in server.items() if value not in (None, "", [], {})}
    canonical = json.dumps(
        {"digest": digest, "server": set_by_user},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:HASH_LENGTH]


def revision_name(name: str, digest: str, server: Mapping[str, Any]) -> str:
    """Name of the revision that a ModelDeployment's spec asks for: ``<name>-<hash>``."""
    return f"{name}-{revision_hash(digest, server)}"
