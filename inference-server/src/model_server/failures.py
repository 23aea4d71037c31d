"""Why a server cannot start, in the words that the operator and `kubectl describe pod` show."""

import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import assert_never

_log = logging.getLogger(__name__)

# Kubernetes keeps at most 4096 bytes of a termination message; JSON escapes may double a character.
_MAX_MESSAGE_CHARS = 1800


class Reason(StrEnum):
    """What went wrong, as the operator reads it."""

    DIGEST_MISMATCH = "DigestMismatch"
    INVALID_MODEL = "InvalidModel"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    GOLDEN_REQUEST_FAILED = "GoldenRequestFailed"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    INVALID_CONFIG = "InvalidConfig"
    INTERNAL_ERROR = "InternalError"


class StartupError(Exception):
    """The server cannot start.

    Attributes:
        reason: The class of the failure.
        message: One sentence that says what was found and what to change.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def exit_code(self) -> int:
        """1: a bug. 2: wrong configuration. 3: this model will never load. 4: worth another try."""
        match self.reason:
            case Reason.INTERNAL_ERROR:
                return 1
            case Reason.INVALID_CONFIG:
                return 2
            case (
                Reason.DIGEST_MISMATCH
                | Reason.INVALID_MODEL
                | Reason.UNSUPPORTED_MODEL
                | Reason.GOLDEN_REQUEST_FAILED
            ):
                return 3
            case Reason.SOURCE_UNAVAILABLE:
                return 4
        assert_never(self.reason)


def write_termination_message(path: Path, error: StartupError) -> None:
    """Leave `error` as one JSON line where the kubelet picks it up.

    Outside Kubernetes the file usually cannot be written; the log has the same message then.
    """
    message = error.message
    if len(message) > _MAX_MESSAGE_CHARS:
        message = message[: _MAX_MESSAGE_CHARS - 1] + "…"
    line = json.dumps({"reason": error.reason, "message": message}, ensure_ascii=False)
    try:
        path.write_text(line + "\n", encoding="utf-8")
    except OSError as cause:
        _log.debug("no termination message: %s", cause)
