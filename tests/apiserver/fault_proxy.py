"""A proxy before a real kube-apiserver that fails calls in all the ways in which networks can.

It is on plain HTTP and loopback; what it lets through goes to the API server unchanged, with the
caller's own credentials.
"""

from __future__ import annotations

import asyncio
import enum
import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

Manifest = dict[str, Any]

RETRY_AFTER_S: Final = 1
_WATCHER: Final = "kopf/"
_HOP_BY_HOP: Final = frozenset(
    {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}
)
_LARGEST_BODY_BYTES: Final = 16 * 1024 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Fault(enum.Enum):
    """What happens to a call."""

    CONFLICT = "409"
    THROTTLED = "429"
    ERROR = "500"
    RESET = "reset"
    HANG = "hang"
    LOST_BY_RESET = "reset after the write"
    LOST_BY_HANG = "hang after the write"


_ANSWERS: Final = {
    Fault.CONFLICT: (409, "Conflict", "the object has been modified"),
    Fault.THROTTLED: (429, "TooManyRequests", "too many requests, please try again later"),
    Fault.ERROR: (500, "InternalError", "etcdserver: request timed out"),
}
LOST: Final = (Fault.LOST_BY_RESET, Fault.LOST_BY_HANG)
"""Faults of calls that are carried out, and nobody is told."""
_HANGING: Final = (Fault.HANG, Fault.LOST_BY_HANG)


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        namespace: Of its path; empty for none.
        kind: What it is about, in the plural.
        selector: Of labels.
        watcher: Whether the watch layer asks, rather than the engine's own client.
        watch: Whether it is a watch.
        listing: Whether it is a list.
    """

    method: str
    path: str
    namespace: str
    kind: str
    selector: str
    watcher: bool
    watch: bool
    listing: bool


class Watching(enum.Enum):
    """What becomes of watches."""

    OPEN = "let through"
    CUT = "reset at once"
    GONE = "begun, and then told that the version is too old"
    REFUSED = "refused with 410"


@dataclass(slots=True)
class FaultProxy:
    """Answers on one port for the API server.

    Attributes:
        server: Address of the API server.
        certificate: Path of its certificate.
        fault: Asked about every call; None lets it through.
        watching: What becomes of watches from now on; `cut` ends those that run.
        stale: Whether a call gets the copy of its list that was seen first since `remember`.
    """

    server: str
    certificate: str | None
    fault: Callable[[Call], Fault | None] = lambda _call: None
    watching: Watching = Watching.OPEN
    stale: Callable[[Call], bool] = lambda _call: False
    port: int = 0
    _lists: dict[str, bytes] = field(default_factory=dict)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _watches: list[web.Request] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    def remember(self) -> None:
        """From now on, keep the first copy of each list."""
        self._lists.clear()

    def cut(self, watching: Watching) -> None:
        """End all watches, and treat new ones like this."""
        self.watching = watching
        for request in list(self._watches):
            _reset(request)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listen until the block ends."""
        context = ssl.create_default_context(cafile=self.certificate)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        application = web.Application(client_max_size=_LARGEST_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=True
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            try:
                yield
            finally:
                self._closing.set()
                self.cut(self.watching)
                await runner.cleanup()

    def kubeconfig(self, original: Path, folder: Path) -> Path:
        """The same credentials with this address."""
        config = yaml.safe_load(original.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        path = folder / "kubeconfig-of-the-proxy"
        path.write_text(yaml.safe_dump(config))
        return path

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = _call(request)
        fault = self.fault(call)
        if fault in _ANSWERS:
            return _answer(*_ANSWERS[fault])
        answer: web.StreamResponse | None = None
        if fault is None or fault in LOST:
            answer = await (self._watch(request) if call.watch else self._pass_on(request, call))
        if fault is None and answer is not None:
            return answer
        if fault in _HANGING:
            await self._until_gone(request)
        return _reset(request)

    async def _pass_on(self, request: web.Request, call: Call) -> web.Response:
        try:
            async with self._forward(request, await request.read()) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError):  # the API server itself is away
            return _answer(503, "ServiceUnavailable", "the API server is away")
        if call.listing and answer.status == 200:
            first = self._lists.setdefault(request.path_qs, body)
            body = first if self.stale(call) else body
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
        return web.Response(status=answer.status, body=body, headers=headers)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.watching is Watching.CUT:
            return _reset(request)
        if self.watching is Watching.REFUSED:
            return _answer(410, "Expired", "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if self.watching is Watching.GONE:
            await response.prepare(request)
            status = _status(410, "Expired", "too old resource version")
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        self._watches.append(request)
        try:
            async with self._forward(request, b"") as answer:
                response.set_status(answer.status)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
        except (aiohttp.ClientError, OSError):
            return _reset(request)
        finally:
            self._watches.remove(request)
        return response

    def _forward(self, request: web.Request, body: bytes) -> Any:
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        url = URL(f"{self.server}{request.raw_path}", encoded=True)
        return self._session.request(
            request.method,
            url,
            headers=headers,
            data=body or None,
            skip_auto_headers=("Content-Type", "User-Agent"),
        )

    async def _until_gone(self, request: web.Request) -> None:
        """Say nothing until the caller has gone away."""
        while not self._closing.is_set() and _is_open(request):  # noqa: ASYNC110 - aiohttp has no
            await asyncio.sleep(0.05)  # event for it


def _call(request: web.Request) -> Call:
    parts = request.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]  # without the group and its version
    in_namespace = len(parts) > 2 and parts[0] == "namespaces"
    namespace = parts[1] if in_namespace else ""
    kind_and_name = parts[2:] if in_namespace else parts
    watch = request.query.get("watch") == "true"
    return Call(
        method=request.method,
        path=request.path,
        namespace=namespace,
        kind=kind_and_name[0] if kind_and_name else "",
        selector=request.query.get("labelSelector", ""),
        watcher=request.headers.get("User-Agent", "").startswith(_WATCHER),
        watch=watch,
        listing=request.method == "GET" and len(kind_and_name) == 1 and not watch,
    )


def _is_open(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _reset(request: web.Request) -> web.Response:
    """End the connection with a reset, as a peer that vanished."""
    transport = request.transport
    if transport is not None:
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response()


def _answer(code: int, reason: str, message: str) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if code == 429 else {}
    return web.json_response(_status(code, reason, message), status=code, headers=headers)


def _status(code: int, reason: str, message: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
