"""Times on the wire: RFC 3339 in UTC; inside, seconds since the epoch."""

from datetime import UTC, datetime


def format_time(time_s: float) -> str:
    """Seconds since the epoch as RFC 3339 with milliseconds, such as 2026-01-31T12:00:00.250Z."""
    moment = datetime.fromtimestamp(round(time_s, 3), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float:
    """RFC 3339 as seconds since the epoch.

    Raises:
        ValueError: It is not a time.
    """
    return datetime.fromisoformat(text).timestamp()
