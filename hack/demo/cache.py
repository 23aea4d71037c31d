"""Where the demo keeps what it can make again: outside the checkout, keyed by its content."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def cache_dir() -> Path:
    """The project's cache directory (`$XDG_CACHE_HOME/model-operator`), which may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "model-operator"


def content_key(parts: Iterable[bytes]) -> str:
    """A short hash of `parts`; the length of each is hashed too, so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]
