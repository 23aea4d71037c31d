"""Small HTTP servers on loopback, which answer as they are told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from model_operator.api.samples import Answer, Query

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def all_answers(coming: AsyncIterator[dict[Query, Answer]]) -> dict[Query, Answer]:
    """The answers when none is awaited any more."""
    answers: dict[Query, Answer] = {}
    async for so_far in coming:
        answers = so_far
    return answers


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve every path by one handler; gives the port."""
    server = web.Server(handler)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port: int = runner.addresses[0][1]
    try:
        yield port
    finally:
        await runner.cleanup()


@dataclass
class MetricsPage:
    """A pod's metrics, which a test may change; counts how often it was scraped."""

    text: str = ""
    status: int = 200
    hang: bool = False
    scrapes: int = 0
    paths: list[str] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.scrapes += 1
        self.paths.append(request.path)
        if self.hang:
            await asyncio.sleep(60)
        return web.Response(text=self.text, status=self.status)
