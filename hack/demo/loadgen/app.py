"""The load generator's HTTP API: start, stop, and the answers since a window.

- `POST /start {"rate": 100}`: requests per second, once the route answers; 409 while it runs at
  another rate
- `POST /stop`: stops and waits for the answers that are still out
- `GET /stats?since=N`: closed windows from number N on
- `GET /healthz`
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from aiohttp import web
from prometheus_client import Counter, Histogram

from .answers import Answer, Tally
from .sender import Request, Sender, Target

WINDOW_S = 0.1
STATS_LIMIT = 3000
SERVED_TIMEOUT_S = 5.0

ANSWERS = Counter(
    "loadgen_answers_total", "Answers, by revision and code.", ["revision", "code", "correct"]
)
LATENCY = Histogram(
    "loadgen_latency_seconds",
    "Time from when a request was due to its answer.",
    ["revision"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


class Generator:
    """Runs at most one sender at a time and keeps closing windows while it runs."""

    def __init__(self, target: Target, requests: tuple[Request, ...]) -> None:
        self.tally = Tally()
        self._sender = Sender(target, requests, self.tally, _export)
        self._stop = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.rate: float | None = None

    async def start(self, rate: float) -> bool:
        """Starts sending, once the route is served; False if it already sends at another rate."""
        if self.rate is not None:
            return self.rate == rate
        self.rate = rate
        await self._sender.wait_until_served(SERVED_TIMEOUT_S)
        self._stop = asyncio.Event()
        self._sending = asyncio.create_task(self._sender.run(rate, self._stop))
        self._closing = asyncio.create_task(self._close_windows())
        return True

    async def stop(self) -> None:
        """Stops sending, waits for the answers that are out and closes the last window."""
        if self._sending is None or self._closing is None:
            return
        self._stop.set()
        await self._sending
        self._closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._closing
        self._sending = self._closing = self.rate = None

    async def _close_windows(self) -> None:
        # The wall clock is read once: a step of it must not tear the history apart.
        epoch_offset_s = time.time() - time.monotonic()
        begin_s = time.monotonic()
        try:
            while True:
                await asyncio.sleep(begin_s + WINDOW_S - time.monotonic())
                begin_s = self._close(begin_s, epoch_offset_s)
        finally:
            self._close(begin_s, epoch_offset_s)

    def _close(self, begin_s: float, epoch_offset_s: float) -> float:
        now_s = time.monotonic()
        self.tally.close(
            start_time=begin_s + epoch_offset_s, monotonic_s=begin_s, length_s=now_s - begin_s
        )
        return now_s


GENERATOR = web.AppKey("generator", Generator)


def make_app(target: Target, requests: tuple[Request, ...]) -> web.Application:
    """The API around a generator that does not run yet."""

    async def lifespan(app: web.Application) -> AsyncIterator[None]:
        app[GENERATOR] = Generator(target, requests)
        yield
        await app[GENERATOR].stop()

    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/stats", _stats),
            web.post("/start", _start),
            web.post("/stop", _stop),
        ]
    )
    return app


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _start(request: web.Request) -> web.Response:
    try:
        rate = float((await request.json())["rate"])
    except (KeyError, TypeError, ValueError):
        raise web.HTTPBadRequest(text='the body must be {"rate": NUMBER}') from None
    if not 0 < rate <= 10_000:  # noqa: PLR2004 - one process sends no more
        raise web.HTTPBadRequest(text="rate must be above 0 and at most 10000 requests/s")
    if not await request.app[GENERATOR].start(rate):
        raise web.HTTPConflict(text="it runs at another rate: stop it first")
    return web.json_response({"rate": rate})


async def _stop(request: web.Request) -> web.Response:
    await request.app[GENERATOR].stop()
    return web.json_response({"rate": None})


async def _stats(request: web.Request) -> web.Response:
    try:
        since = int(request.query.get("since", "0"))
    except ValueError:
        raise web.HTTPBadRequest(text="since must be the number of a window") from None
    generator = request.app[GENERATOR]
    windows = generator.tally.since(since, STATS_LIMIT)
    return web.json_response(
        {
            "rate": generator.rate,
            "first": generator.tally.first_seq,
            "next": windows[-1].seq + 1 if windows else max(since, generator.tally.first_seq),
            "windows": [window.to_json() for window in windows],
        }
    )


def _export(answer: Answer) -> None:
    ANSWERS.labels(answer.revision, answer.code, str(answer.correct).lower()).inc()
    LATENCY.labels(answer.revision).observe(answer.latency_ms / 1000)
