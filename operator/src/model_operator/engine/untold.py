"""Decisions that may have been written, although the answer was lost: they must be told once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from model_operator.api.types import ModelDeploymentStatus
from model_operator.engine.store import Key

T = TypeVar("T")
_LIMIT: Final = 8


@dataclass(slots=True)
class Untold(Generic[T]):
    """What was decided, with the status that tells whether it was written."""

    _by_key: dict[Key, list[tuple[ModelDeploymentStatus, T]]] = field(default_factory=dict)

    def add(self, key: Key, status: ModelDeploymentStatus, decided: T) -> None:
        """Before `status` is written."""
        known = self._by_key.setdefault(key, [])
        known.append((status, decided))
        del known[:-_LIMIT]

    def take(self, key: Key, live: ModelDeploymentStatus) -> T | None:
        """What has led to this live status and was not told; the rest was not written, then."""
        for status, decided in self._by_key.get(key, ()):
            if status == live:
                del self._by_key[key]
                return decided
        return None

    def forget(self, key: Key) -> None:
        """Nothing of it was written, or the ModelDeployment is gone."""
        self._by_key.pop(key, None)
