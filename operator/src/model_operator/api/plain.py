"""Frozen types to plain JSON values and back, for what is kept in free-form fields of a status."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A frozen type as dicts, lists, strings and numbers."""
    return msgspec.to_builtins(value)


def from_plain(data: Any, type_: type[T]) -> T | None:
    """What `to_plain` wrote; None for anything else. Never raises."""
    try:
        # Not strict: an API server gives a float without a fraction back as an integer.
        return msgspec.convert(data, type_, strict=False)
    except msgspec.ValidationError:
        return None
