"""Sends requests at a steady rate, whatever comes back, and classifies every answer."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from .answers import CONNECT, GATEWAY, MALFORMED, OK, OVERLOAD, RESET, TIMEOUT, Answer, Tally

REVISION_HEADER = "x-model-revision"
PROBE_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        url: Inference endpoint, such as `http://gateway/v2/models/digits/infer`.
        host: Value of the Host header, which the gateway routes by.
        timeout_s: A request without an answer for this long counts as `timeout`.
        max_in_flight: Above this nothing more is sent, and each request due counts as `overload`.
    """

    url: str
    host: str
    timeout_s: float = 10.0
    max_in_flight: int = 2000


@dataclass(frozen=True, slots=True)
class Request:
    """One labelled image, ready to be sent.

    Attributes:
        body: The inference request as JSON.
        label: The digit that it shows.
    """

    body: bytes
    label: int


def read_requests(path: Path) -> tuple[Request, ...]:
    """The requests of a file with `input`, `output`, `images` and `labels`."""
    data = json.loads(path.read_text())
    return tuple(
        Request(body=_body(data["input"], data["output"], image), label=label)
        for image, label in zip(data["images"], data["labels"], strict=True)
    )


def _body(input_name: str, output_name: str, image: list[float]) -> bytes:
    tensor = {"name": input_name, "datatype": "FP32", "shape": [1, len(image)], "data": image}
    return json.dumps(
        {"inputs": [tensor], "outputs": [{"name": output_name}]}, separators=(",", ":")
    ).encode()


def answered_digit(body: bytes) -> int:
    """The digit with the largest score in the first output of an inference response.

    Raises:
        ValueError: The body is no inference response.
    """
    try:
        scores: list[float] = json.loads(body)["outputs"][0]["data"]
        return max(range(len(scores)), key=scores.__getitem__)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"not an inference response: {body[:80]!r}") from error


class Sender:
    """An open loop: request n is sent at start + n / rate, however long the answers take.

    Nothing is tried again: a request that fails is a failed request.
    """

    def __init__(
        self,
        target: Target,
        requests: tuple[Request, ...],
        tally: Tally,
        observe: Callable[[Answer], None] = lambda _answer: None,
    ) -> None:
        self._target = target
        self._requests = requests
        self._tally = tally
        self._observe = observe
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Sends `rate` requests per second until `stop` is set, then waits for the answers."""
        async with self._session() as session:
            await self._pace(session, rate, stop)
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def wait_until_served(self, timeout_s: float) -> bool:
        """Asks until a revision answers 200; False if none does in time. Counts nothing.

        A gateway serves a new route some time after it has said that it accepts it.
        """
        deadline_s = time.monotonic() + timeout_s
        async with self._session() as session:
            while time.monotonic() < deadline_s:
                revision, code, _ = await self._exchange(session, self._requests[0])
                if code == OK and revision != GATEWAY:
                    return True
                await asyncio.sleep(PROBE_INTERVAL_S)
        return False

    def _session(self) -> aiohttp.ClientSession:
        # NB: no limit on connections; one would turn the open loop into a closed one.
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30)
        timeout = aiohttp.ClientTimeout(total=self._target.timeout_s)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def _pace(self, session: aiohttp.ClientSession, rate: float, stop: asyncio.Event) -> None:
        start_s = time.monotonic()
        number = 0
        while not stop.is_set():
            due_s = start_s + number / rate
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait_s)
                continue
            request = self._requests[number % len(self._requests)]
            number += 1
            if self._tally.in_flight >= self._target.max_in_flight:
                self._refuse()
                continue
            self._tally.send()
            task = asyncio.create_task(self._send(session, request, due_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0)

    def _refuse(self) -> None:
        answer = Answer(GATEWAY, OVERLOAD, correct=False, sent_time=time.time(), latency_ms=0.0)
        self._tally.refuse(answer)
        self._observe(answer)

    async def _send(self, session: aiohttp.ClientSession, request: Request, due_s: float) -> None:
        sent_time = time.time()
        revision, code, correct = await self._exchange(session, request)
        answer = Answer(
            revision=revision,
            code=code,
            correct=correct,
            sent_time=sent_time,
            latency_ms=(time.monotonic() - due_s) * 1000,
        )
        self._tally.finish(answer)
        self._observe(answer)

    async def _exchange(
        self, session: aiohttp.ClientSession, request: Request
    ) -> tuple[str, str, bool]:
        revision = GATEWAY
        headers: dict[str, Any] = {"Host": self._target.host, "Content-Type": "application/json"}
        try:
            async with session.post(
                self._target.url, data=request.body, headers=headers, allow_redirects=False
            ) as response:
                revision = response.headers.get(REVISION_HEADER, GATEWAY)
                body = await response.read()
        except TimeoutError:
            return revision, TIMEOUT, False
        except aiohttp.ClientConnectorError:
            return revision, CONNECT, False
        except (aiohttp.ClientError, OSError):
            return revision, RESET, False
        if response.status != int(OK):
            return revision, str(response.status), False
        try:
            return revision, OK, answered_digit(body) == request.label
        except ValueError:
            return revision, MALFORMED, False
