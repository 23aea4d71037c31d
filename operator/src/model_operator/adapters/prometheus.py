"""The metrics source Prometheus, or whatever speaks its HTTP API."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from model_operator.adapters.http import TooLargeError, read_limited
from model_operator.adapters.sources import QueryFailedError
from model_operator.api.samples import FailureKind, Query, Samples, Series
from model_operator.api.types import Prometheus

_MAX_BYTES: Final = 8 * 1024 * 1024
_CONNECTIONS: Final = 32
_STALE_SCRAPES: Final = 2
_CONFIGURATION: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)

_STRING = re.compile(r"""\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`""", re.DOTALL)
_RANGE_SELECTOR = re.compile(
    r"((?:[a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(?:\{[^{}]*\})?)\s*\[[^\[\]:]+\]", re.DOTALL
)


class _Sample(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    data: _Data | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    data: _Data
    warnings: tuple[str, ...]

    def vector(self) -> tuple[_Sample, ...]:
        return msgspec.json.decode(self.data.result, type=tuple[_Sample, ...])


class PrometheusSource:
    """Answers queries from one Prometheus.

    Each source has connections of its own, so that one that hangs takes none from the others.

    A sample older than two scrapes is no data. For what a query reads of the present, that is asked
    of the server (``lookback_delta``, since Prometheus 2.43; older servers fall back to their own,
    five minutes unless configured otherwise). A range such as ``[1m]`` would go on answering from
    old samples for its whole length, so the age of the newest of them is asked for as well.

    Args:
        name: Name of the MetricSource, for messages.
        spec: Where and how to ask.
        token: Bearer token, None for none.
        ca_pem: CA bundle to trust, None for the system's.
    """

    def __init__(
        self, name: str, spec: Prometheus, *, token: str | None = None, ca_pem: str | None = None
    ) -> None:
        self._name = name
        self._url = URL(spec.url.rstrip("/") + "/api/v1/query")
        self._timeout_s = spec.timeout.seconds
        self._oldest_s = _STALE_SCRAPES * spec.scrape_interval.seconds
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._ssl = ssl.create_default_context(cadata=ca_pem)
        self._server_name = spec.tls.server_name if spec.tls else None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        """Ask one instant query, for now.

        Raises:
            QueryFailedError: The query or the source is configured wrongly, or there is no answer.
        """
        timeout_s = min(timeout_s, self._timeout_s)
        ranges = range_selectors(query.text)
        if not ranges:
            return _samples(await self._ask(query.text, timeout_s))
        answer, stale = await asyncio.gather(
            self._ask(query.text, timeout_s), self._is_stale(ranges, timeout_s)
        )
        return Samples((), answer.warnings) if stale else _samples(answer)

    async def _is_stale(self, selectors: tuple[str, ...], timeout_s: float) -> bool:
        """Whether nothing that a range reads is recent."""
        ages = " or ".join(f"timestamp({selector})" for selector in selectors)
        try:
            answer = await self._ask(f"max({ages})", timeout_s)
        except QueryFailedError as error:
            if error.failure.kind is FailureKind.CONFIGURATION:
                # The question is ours; only the user's own may be called wrong.
                return False
            raise
        newest = answer.vector()
        if not newest or newest[0].value is None:
            return True
        asked_at, newest_at = newest[0].value
        return asked_at - float(newest_at) > self._oldest_s

    async def _ask(self, text: str, timeout_s: float) -> _Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=self._ssl)
            )
        form = {
            "query": text,
            "timeout": f"{timeout_s:g}s",
            "lookback_delta": f"{self._oldest_s:g}",
        }
        try:
            async with self._session.post(
                self._url,
                data=form,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as response:
                status = response.status
                content = await read_limited(response, _MAX_BYTES)
        except TimeoutError:
            raise self._unavailable(f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from None
        except TooLargeError as error:
            raise self._misconfigured(f"{error}; aggregate it in the query") from None
        return self._parse(status, content)

    def _parse(self, status: int, content: bytes) -> _Answer:
        try:
            body = msgspec.json.decode(content, type=_Body)
        except msgspec.DecodeError:
            # A proxy's page, or no Prometheus at all.
            body = _Body(error=content[:200].decode(errors="replace"))
        if status == HTTPStatus.OK and body.data is not None:
            return _Answer(body.data, body.warnings)
        message = f"answers {status}: {body.error}"
        if status in _CONFIGURATION or HTTPStatus(300) <= status < HTTPStatus.BAD_REQUEST:
            raise self._misconfigured(message)
        raise self._unavailable(message)

    def _misconfigured(self, message: str) -> QueryFailedError:
        return QueryFailedError(FailureKind.CONFIGURATION, f"source {self._name} {message}")

    def _unavailable(self, message: str) -> QueryFailedError:
        return QueryFailedError(FailureKind.UNAVAILABLE, f"source {self._name}: {message}")


def range_selectors(text: str) -> tuple[str, ...]:
    """Selectors of a query that are read over a range, without the range.

    Examples:
        ``rate(a{b="[1m]"}[5m]) / sum(rate(c[5m]))`` has ``a{b="[1m]"}`` and ``c``.
    """
    # Brackets and braces inside of strings mean nothing.
    blank = _STRING.sub(lambda match: "_" * len(match.group()), text)
    spans = (match.span(1) for match in _RANGE_SELECTOR.finditer(blank))
    selectors = (text[start:end].strip() for start, end in spans)
    return tuple(dict.fromkeys(selector for selector in selectors if selector))


def _samples(answer: _Answer) -> Samples:
    match answer.data.result_type:
        case "vector":
            samples = answer.vector()
        case "scalar":
            value = msgspec.json.decode(answer.data.result, type=tuple[float, str])
            samples = (_Sample({}, value),)
        case other:
            raise QueryFailedError(
                FailureKind.CONFIGURATION,
                f"the query has a {other} for an answer; it must be an instant vector or a scalar",
            )
    return Samples(tuple(map(_series, samples)), answer.warnings)


def _series(sample: _Sample) -> Series:
    if sample.value is None:
        raise QueryFailedError(
            FailureKind.CONFIGURATION,
            "the query has a native histogram for an answer; a number is needed",
        )
    labels = {name: value for name, value in sample.metric.items() if name != "__name__"}
    return Series(tuple(sorted(labels.items())), float(sample.value[1]))
