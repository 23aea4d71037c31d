"""From a URI to verified bytes on disk."""

import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from model_server.digest import PREFIX, digest_of
from model_server.failures import Reason, StartupError

_log = logging.getLogger(__name__)

_PROGRESS_INTERVAL_S = 5.0
_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 15.0
# Answers that another attempt may change; every other 4xx is about the URI or its permissions.
_RETRIED_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may cost.

    Attributes:
        total_s: Seconds until the last attempt is given up.
        idle_s: Seconds without a byte after which an attempt is given up.
        max_bytes: Largest model that is taken.
    """

    total_s: float = 900.0
    idle_s: float = 30.0
    max_bytes: int = 16 << 30


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Brings models to `folder`. A download that was interrupted is resumed, also by a restart.

    Attributes:
        folder: Where downloads live, under the hex of their digest.
        limits: What a download may cost.
        sleep: Waits between attempts; an argument for tests.
    """

    folder: Path
    limits: Limits = field(default_factory=Limits)
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, uri: str, digest: str) -> Path:
        """Return the path of the file or folder at `uri` after its digest was found to be `digest`.

        `file` URIs are used in place; `http` and `https` URIs are downloaded once.

        Raises:
            StartupError: It cannot be had, or is something else than `digest` names.
        """
        parts = _parsed(uri)
        if parts.scheme == "file":
            path = Path(unquote(parts.path))
            return _verified(path, uri, digest)
        if parts.scheme in {"http", "https"}:
            return self._download(uri, digest)
        raise StartupError(
            Reason.INVALID_CONFIG,
            f"model URI {_shown(uri)} has scheme {parts.scheme!r}; "
            "this server reads file, http and https",
        )

    def _download(self, uri: str, digest: str) -> Path:
        target = self.folder / (digest.removeprefix(PREFIX) + ".onnx")
        if target.is_file() and digest_of(target) == digest:
            _log.info("model is here from an earlier start", extra={"path": str(target)})
            return target
        partial = target.with_suffix(".partial")
        resumed = partial.exists()
        self._transfer(uri, partial)
        actual = digest_of(partial)
        if actual != digest and resumed:
            # the first part may be of an older file behind the same URI
            partial.unlink()
            self._transfer(uri, partial)
            actual = digest_of(partial)
        if actual != digest:
            partial.unlink()
            raise _mismatch(uri, digest, actual)
        _publish(partial, target)
        return target

    def _transfer(self, uri: str, partial: Path) -> None:
        """Complete `partial`, trying again after failures that may pass."""
        deadline = time.monotonic() + self.limits.total_s
        timeout = httpx.Timeout(self.limits.idle_s)
        with httpx.Client(timeout=timeout, follow_redirects=True) as client:
            attempt = 0
            while True:
                attempt += 1
                try:
                    self._attempt(client, uri, partial, deadline)
                except _PassingError as error:
                    wait_s = _backoff_s(attempt)
                    if time.monotonic() + wait_s > deadline:
                        raise StartupError(
                            Reason.SOURCE_UNAVAILABLE,
                            f"model {_shown(uri)} cannot be downloaded: {error}, after {attempt} "
                            f"attempts in {self.limits.total_s:.0f} s; check that the pods reach "
                            "the model's host",
                        ) from error
                    _log.warning(
                        "download interrupted",
                        extra={"reason": str(error), "attempt": attempt, "retry_in_s": wait_s},
                    )
                    self.sleep(wait_s)
                else:
                    return

    def _attempt(self, client: httpx.Client, uri: str, partial: Path, deadline: float) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        # a transfer coding would make byte positions meaningless
        headers = {"accept-encoding": "identity"}
        if have:
            headers["range"] = f"bytes={have}-"
        try:
            with client.stream("GET", uri, headers=headers) as response:
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                    # nothing is left to send, or the file became shorter: the digest will tell
                    return
                _check_status(uri, response)
                append = response.status_code == httpx.codes.PARTIAL_CONTENT
                self._write(uri, response, partial, have if append else 0, deadline)
        except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise _PassingError(str(error) or type(error).__name__) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            # httpx lets the errors of the host's encoding through
            raise StartupError(
                Reason.INVALID_CONFIG, f"model URI {_shown(uri)} is not valid: {error}"
            ) from error
        except httpx.HTTPError as error:
            raise StartupError(
                Reason.SOURCE_UNAVAILABLE,
                f"model {_shown(uri)} cannot be downloaded: {error}; check the model URI",
            ) from error
        except OSError as error:
            raise StartupError(
                Reason.SOURCE_UNAVAILABLE,
                f"model {_shown(uri)} cannot be stored in {partial.parent}: {error}; "
                "check the size of that volume",
            ) from error

    def _write(
        self, uri: str, response: httpx.Response, partial: Path, offset: int, deadline: float
    ) -> None:
        expected = offset + int(response.headers.get("content-length", "0"))
        self._check_size(uri, expected)
        received = offset
        report_at = time.monotonic() + _PROGRESS_INTERVAL_S
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab" if offset else "wb") as file:
            # NB: no chunk size: httpx would drop what it has of a chunk when the connection breaks
            for chunk in response.iter_raw():
                received += len(chunk)
                self._check_size(uri, received)
                file.write(chunk)
                now = time.monotonic()
                if now > deadline:
                    raise _PassingError(f"only {received} bytes arrived in time")
                if now > report_at:
                    report_at = now + _PROGRESS_INTERVAL_S
                    progress = {"received_bytes": received, "expected_bytes": expected or None}
                    _log.info("downloading model", extra=progress)
            file.flush()
            os.fsync(file.fileno())
        _log.info("downloaded model", extra={"received_bytes": received, "resumed_at": offset})

    def _check_size(self, uri: str, size: int) -> None:
        if size > self.limits.max_bytes:
            raise StartupError(
                Reason.UNSUPPORTED_MODEL,
                f"model {_shown(uri)} is larger than {self.limits.max_bytes} bytes, the most that "
                "this server takes; raise --max-model-bytes",
            )


class _PassingError(Exception):
    """A failure that another attempt may not meet."""


def _parsed(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        valid = parts.port != 0 and "\0" not in unquote(parts.path)
    except ValueError:
        valid = False
    if not valid:
        # neither the URI nor Python's words for its error: both may have a password in them
        raise StartupError(
            Reason.INVALID_CONFIG,
            "the model URI is not valid; check its host, its port and its path, as in "
            "https://models.example:8443/digits/model.onnx",
        )
    return parts


def _check_status(uri: str, response: httpx.Response) -> None:
    status = response.status_code
    if response.is_success:
        return
    answer = f"{status} {response.reason_phrase}".strip()
    if response.is_server_error or status in _RETRIED_STATUSES:
        raise _PassingError(f"the server answered {answer}")
    if status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
        advice = "check the model URI and that the model was published"
    elif status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        advice = "check that the pods may read it"
    else:
        advice = "check the model URI"
    raise StartupError(
        Reason.SOURCE_UNAVAILABLE, f"model {_shown(uri)}: the server answered {answer}; {advice}"
    )


def _verified(path: Path, uri: str, digest: str) -> Path:
    try:
        actual = digest_of(path)
    except FileNotFoundError as error:
        raise StartupError(
            Reason.SOURCE_UNAVAILABLE,
            f"model {_shown(uri)}: there is no file {error.filename or path}; "
            "check the model URI and the mounted volume",
        ) from error
    except OSError as error:
        raise StartupError(
            Reason.SOURCE_UNAVAILABLE,
            f"model {_shown(uri)} cannot be read: {error}; check its permissions",
        ) from error
    if actual != digest:
        raise _mismatch(uri, digest, actual)
    return path


def _publish(partial: Path, target: Path) -> None:
    """Make a complete file visible at once, or not at all."""
    partial.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mismatch(uri: str, expected: str, actual: str) -> StartupError:
    return StartupError(
        Reason.DIGEST_MISMATCH,
        f"model {_shown(uri)} has digest {actual}, not {expected}; "
        "set the digest of the model that is meant, or publish that model again",
    )


def _backoff_s(attempt: int) -> float:
    """Return a wait that doubles, spread so that replicas do not retry in step."""
    ceiling = min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def _shown(uri: str) -> str:
    """Return `uri` without what may be a secret in it: user, password and query."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
