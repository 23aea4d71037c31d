"""Logs as JSON lines on stderr, with the keys that Kubernetes components use."""

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson

_BUILTIN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# uvicorn's own keys, for a terminal
_IGNORED_FIELDS = frozenset({"color_message"})


class JsonFormatter(logging.Formatter):
    """One JSON object for each record; `extra` fields become keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as one line."""
        entry: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        known = _BUILTIN_FIELDS | _IGNORED_FIELDS
        entry |= {key: value for key, value in vars(record).items() if key not in known}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


def configure_logging(level: str) -> None:
    """Send all records of `level` (a name such as `info`) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # httpx logs a line for each request, uvicorn its banner: no help to whoever reads the log
    for name in ("httpx", "httpcore", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class RateLimited:
    """Lets one record through in each interval, so that a broken model cannot flood the log."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next = 0.0
        self._suppressed = 0

    def admit(self) -> int | None:
        """Return how many records were left out since the last one, or None: leave this out."""
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        self._next = now + self._interval_s
        return suppressed
