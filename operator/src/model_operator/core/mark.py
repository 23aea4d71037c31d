"""What a route remembers of its last rollback, so that it outlives an operator that dies there."""

from __future__ import annotations

import json
from dataclasses import dataclass

from model_operator.api.plain import from_plain, to_plain

_MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """A rollback that the route carries out.

    Attributes:
        rollout: Start time of the rollout that was taken off the route.
        revision: Whom it was about.
        reason: Why, in CamelCase.
        message: Why, with the numbers.
        time: When.
    """

    rollout: str
    revision: str
    reason: str
    message: str
    time: str


def write_mark(mark: Mark) -> str:
    """The mark as an annotation's value."""
    plain = to_plain(mark)
    return json.dumps({**plain, "message": mark.message[:_MESSAGE_LIMIT]}, separators=(",", ":"))


def read_mark(text: str | None) -> Mark | None:
    """The mark that an annotation's value holds; None for anything else."""
    try:
        return from_plain(json.loads(text or ""), Mark)
    except ValueError:
        return None
