"""A way to the API server that a test can look into, hold up and cut.

Each operator process gets one of its own, so that a test knows who wrote what, and can end or stop
the process at exactly one call: before the server has it, or before the answer is back.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web

_READS: Final = frozenset({"GET"})
_REQUEST_HEADERS: Final = ("Accept", "Authorization", "Content-Type")
_LONGEST_S: Final = 60.0
_TLS_END_S: Final = 0.1


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        body: Its JSON, None when it has none.
        code: The server's answer; 0 before it came.
        time_s: When the answer came, on the monotonic clock.
    """

    method: str
    path: str
    body: Any
    code: int = 0
    time_s: float = 0.0

    @property
    def writes(self) -> bool:
        return self.method not in _READS

    @property
    def resource(self) -> str:
        """Such as `httproutes` or `modeldeployments/status`."""
        parts = self.path.split("/")
        place = parts.index("namespaces") + 2 if "namespaces" in parts else len(parts) - 1
        return "/".join([parts[place], *parts[place + 2 :]])


class DroppedError(Exception):
    """Raised by a hook: this call goes no further, and its connection is gone."""


Hook = Callable[[Call], Awaitable[None]]


async def _nothing(_call: Call) -> None:
    return


@dataclass(slots=True)
class PassThrough:
    """Sends every call on as it is.

    Attributes:
        kubeconfig: Leads through here.
        calls: Calls that were answered, watches aside, in the order of the answers.
        before: Awaited before a call is sent on.
        after: Awaited before an answer is given back.
    """

    kubeconfig: Path
    calls: list[Call] = field(default_factory=list)
    before: Hook = _nothing
    after: Hook = _nothing
    _refuses: bool = False
    _silent: bool = False
    _transports: set[asyncio.BaseTransport] = field(default_factory=set)
    _server: str = ""
    _session: aiohttp.ClientSession | None = None
    _ends: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def writes(self) -> list[Call]:
        """Writes to anything but leases."""
        return [call for call in self.calls if call.writes and call.resource != "leases"]

    def refuse(self) -> None:
        """From now on every connection is reset."""
        self._refuses = True
        for transport in list(self._transports):
            _abort(transport)

    def fall_silent(self) -> None:
        """From now on nothing gets through, as if packets were dropped: no call is answered."""
        self._silent = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        self._transports.add(transport)
        if self._refuses:
            _abort(transport)
            return web.Response(status=503)
        data = await request.read()
        call = Call(request.method, request.path, json.loads(data) if data else None)
        try:
            return await self._pass(request, call, data)
        except (DroppedError, aiohttp.ClientError, ConnectionError):
            _abort(transport)
            return web.Response(status=503)

    async def _pass(self, request: web.Request, call: Call, data: bytes) -> web.StreamResponse:
        await self._hold()
        await self.before(call)
        headers = {
            name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers
        }
        assert self._session is not None
        sent = self._session.request(
            request.method, f"{self._server}{request.path_qs}", headers=headers, data=data or None
        )
        async with sent as answer:
            if request.query.get("watch"):
                return await self._stream(request, answer)
            body = await answer.read()
            call.code, call.time_s = answer.status, time.monotonic()
            self.calls.append(call)
            await self.after(call)
            await self._hold()
            return web.Response(
                body=body, status=answer.status, headers={"Content-Type": answer.content_type}
            )

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            status=answer.status, headers={"Content-Type": answer.content_type}
        )
        await response.prepare(request)
        with suppress(ConnectionError):
            async for chunk in answer.content.iter_any():
                await self._hold()
                await response.write(chunk)
        return response

    async def _hold(self) -> None:
        if self._silent:
            await self._ends.wait()
            raise DroppedError

    async def open(self, config: Any) -> web.AppRunner:
        """Listen, and write the kubeconfig: this one, with another address."""
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"]
        trusted = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
            timeout=aiohttp.ClientTimeout(total=_LONGEST_S),
        )
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return runner

    async def close(self, runner: web.AppRunner) -> None:
        self._ends.set()
        self.refuse()
        await runner.cleanup()
        if self._session is not None:
            await self._session.close()
            # the client does not wait for its TLS connections to end
            await asyncio.sleep(_TLS_END_S)


@asynccontextmanager
async def pass_through(upstream: Path, kubeconfig: Path) -> AsyncIterator[PassThrough]:
    """A way to the API server of `upstream`, which `kubeconfig` is written for."""
    way = PassThrough(kubeconfig)
    runner = await way.open(await asyncio.to_thread(_load, upstream))
    try:
        yield way
    finally:
        await way.close(runner)


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _abort(transport: asyncio.BaseTransport) -> None:
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
