"""Time in which nobody looked counts for nothing.

A status tells since when evidence is missing and since when pods are awaited. While no operator was
there, or none that could reach the API, evidence may have come and pods could not be made. Counted
all the same, that time would roll a healthy revision back at the first look of the next operator.
"""

from __future__ import annotations

from model_operator.api.times import format_time, parse_time
from model_operator.api.types import replace
from model_operator.engine.snapshot import Subject


def since_looked_at(subject: Subject, looking_since: float) -> Subject:
    """The ModelDeployment with nothing missing or awaited from before this operator looked.

    Args:
        subject: The ModelDeployment.
        looking_since: When this operator saw it first, seconds since the epoch.
    """
    candidate = subject.status.candidate
    if candidate is None:
        return subject
    candidate = replace(
        candidate,
        insufficient_since_time=_later(candidate.insufficient_since_time, looking_since),
        waiting_since_time=_later(candidate.waiting_since_time, looking_since),
    )
    return subject.with_status(replace(subject.status, candidate=candidate))


def _later(since: str | None, looking_since: float) -> str | None:
    if since is None or parse_time(since) >= looking_since:
        return since
    return format_time(looking_since)
