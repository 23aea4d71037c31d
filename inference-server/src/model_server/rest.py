"""The Open Inference Protocol over HTTP, as an ASGI application."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from model_server import __version__
from model_server.dataplane import DataPlane, InferenceResponse, NotReadyError
from model_server.logs import RateLimited
from model_server.metrics import CLIENT_CLOSED_REQUEST, Metrics
from model_server.model import ExecutionError
from model_server.rest_codec import decode_request, encode_metadata, encode_response
from model_server.signature import InvalidRequestError
from model_server.workers import DeadlineExceededError, OverloadedError

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# Parsing or writing more than this keeps the event loop busy for milliseconds: a thread does it, so
# that the loop gets its turn at least between the steps.
_INLINE_BYTES = 256 * 1024
_RETRY_AFTER: Headers = [(b"retry-after", b"1")]


@dataclass(frozen=True, slots=True)
class RestSettings:
    """What this transport allows.

    Attributes:
        request_timeout_s: From the head of a request to its answer; callers may ask for less.
        max_request_bytes: Largest body that is taken. NB: parsing JSON holds the interpreter's
            lock, in whichever thread it is done: some 7 ms for each MiB in which nothing else is
            answered, not even a probe, and 5 to 8 times the body in memory. The default keeps
            the one below what a probe waits for, the other below what a small container has.
    """

    request_timeout_s: float = 30.0
    max_request_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer with a JSON body; `close` ends the connection after it."""

    status: int
    body: bytes
    headers: Headers = field(default_factory=list)
    close: bool = False


class _ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class _RefusedError(Exception):
    """HTTP itself decides the answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


_UNAVAILABLE = 503
_STATUS_OF: dict[type[Exception], int] = {
    InvalidRequestError: 400,
    _ClientGoneError: CLIENT_CLOSED_REQUEST,
    ExecutionError: 500,
    NotReadyError: _UNAVAILABLE,
    OverloadedError: _UNAVAILABLE,
    DeadlineExceededError: 504,
}


class RestApp:
    """Routes requests for one model to its data plane. Errors are `{"error": "<sentence>"}`."""

    def __init__(
        self,
        dataplane: DataPlane,
        metrics: Metrics,
        *,
        model: str,
        revision: str,
        settings: RestSettings,
    ) -> None:
        self._dataplane = dataplane
        self._metrics = metrics
        self._model = model
        self._revision = revision
        self._settings = settings
        self._failures = RateLimited(interval_s=1.0)
        self._headers: Headers = [
            (b"content-type", b"application/json"),
            (b"x-model-revision", revision.encode()),
        ]
        self._reads: dict[str, Callable[[], Answer]] = {
            "/v2": self._server_metadata,
            "/v2/health/live": lambda: _ok({"live": True}),
            "/v2/health/ready": self._server_ready,
        }
        self._infer_paths = set()
        for base in (f"/v2/models/{model}", f"/v2/models/{model}/versions/{revision}"):
            self._reads[base] = self._model_metadata
            self._reads[f"{base}/ready"] = self._model_ready
            self._infer_paths.add(f"{base}/infer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] in self._infer_paths or _names_inference(scope["path"]):
            with self._metrics.request() as timer:
                answer = await self._infer(scope, receive)
                timer.code = answer.status
                await self._send(send, answer)
        else:
            await self._send(send, self._read(scope))

    def _read(self, scope: Scope) -> Answer:
        handler = self._reads.get(scope["path"])
        if handler is None:
            return self._not_found(scope["path"])
        if scope["method"] not in {"GET", "HEAD"}:
            return _wrong_method(scope["method"], "GET, HEAD")
        return handler()

    def _server_metadata(self) -> Answer:
        return _ok({"name": "model-server", "version": __version__, "extensions": []})

    def _server_ready(self) -> Answer:
        ready = self._dataplane.ready
        return Answer(200 if ready else 503, orjson.dumps({"ready": ready}))

    def _model_ready(self) -> Answer:
        ready = self._dataplane.ready
        body = {"name": self._model, "version": self._revision, "ready": ready}
        return Answer(200 if ready else 503, orjson.dumps(body))

    def _model_metadata(self) -> Answer:
        try:
            signature, header = self._dataplane.signature(), self._dataplane.header()
        except NotReadyError as error:
            return self._failed(error)
        return Answer(200, encode_metadata(signature, header, self._model, self._revision))

    async def _infer(self, scope: Scope, receive: Receive) -> Answer:
        """Answer an inference request with whatever becomes of it."""
        try:
            if scope["path"] not in self._infer_paths:
                return self._not_found(scope["path"])
            if scope["method"] != "POST":
                return _wrong_method(scope["method"], "POST")
            self._check_head(scope)
            deadline = asyncio.get_running_loop().time() + self._settings.request_timeout_s
            body = await self._body(receive, deadline)
            return await self._compute(body, receive, deadline)
        except asyncio.CancelledError:
            # the drain took too long; even then whoever waits is told
            return _error(503, "the server stopped before the answer was there", close=True)
        except Exception as error:  # noqa: BLE001 - the boundary: every failure has its answer
            return self._failed(error)

    def _failed(self, error: Exception) -> Answer:
        if isinstance(error, _RefusedError):
            return error.answer
        status = _STATUS_OF.get(type(error))
        if status is None:
            _log.error("a request met a bug of this server", exc_info=error)
            return _error(500, "internal error; the server's log has the details", close=True)
        if isinstance(error, ExecutionError):
            self._log_failure(error)
        return _error(status, str(error), _RETRY_AFTER if status == _UNAVAILABLE else None)

    async def _compute(self, body: bytes, receive: Receive, deadline: float) -> Answer:
        if len(body) > _INLINE_BYTES:
            decoded = await asyncio.to_thread(decode_request, body)
        else:
            decoded = decode_request(body)
        if decoded.timeout_s is not None:
            deadline = min(deadline, asyncio.get_running_loop().time() + decoded.timeout_s)
        inference = self._dataplane.infer(decoded.inference, deadline)
        if self._dataplane.must_wait:
            response = await _unless_client_leaves(receive, inference)
        else:
            response = await inference
        if sum(tensor.array.nbytes for tensor in response.outputs) > _INLINE_BYTES:
            encoded = await asyncio.to_thread(
                encode_response, response, self._model, self._revision
            )
        else:
            encoded = encode_response(response, self._model, self._revision)
        return Answer(200, encoded)

    async def _body(self, receive: Receive, deadline: float) -> bytes:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._read_body(receive)
        except TimeoutError as error:
            answer = _error(408, "the request's body did not arrive in time", close=True)
            raise _RefusedError(answer) from error

    async def _read_body(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _ClientGoneError("the client closed the connection")
            chunk: bytes = message["body"]
            size += len(chunk)
            if size > self._settings.max_request_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    def _check_head(self, scope: Scope) -> None:
        """Refuse what the head of a request alone already decides."""
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._settings.max_request_bytes:
                raise self._too_large()
            if name == b"content-encoding" and value.lower() != b"identity":
                coding = value.decode("latin-1")
                raise _RefusedError(_error(415, f"content-encoding {coding!r} is not supported"))
            if name == b"inference-header-content-length":
                raise InvalidRequestError("binary tensors are not supported; send tensors as JSON")

    def _too_large(self) -> "_RefusedError":
        limit = self._settings.max_request_bytes
        # the rest of the body is not read, so the connection can carry no other request
        return _RefusedError(
            _error(413, f"the request's body is larger than {limit} bytes", close=True)
        )

    def _not_found(self, path: str) -> Answer:
        _, _, rest = path.partition("/v2/models/")
        name, _, tail = rest.partition("/")
        if name and name != self._model:
            return _error(404, f"Request for unknown model: {name!r} is not found")
        if tail.startswith("versions/"):
            version = tail.removeprefix("versions/").partition("/")[0]
            if version != self._revision:
                return _error(
                    404, f"Request for unknown model: {name!r} version {version!r} is not found"
                )
        return _error(404, f"there is nothing at {path}")

    def _log_failure(self, error: ExecutionError) -> None:
        suppressed = self._failures.admit()
        if suppressed is not None:
            extra = {"reason": str(error), "suppressed": suppressed}
            _log.warning("the model failed on a request", extra=extra)

    async def _send(self, send: Send, answer: Answer) -> None:
        headers = [
            *self._headers,
            (b"content-length", str(len(answer.body)).encode()),
            *answer.headers,
        ]
        if answer.close or self._dataplane.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def _unless_client_leaves(
    receive: Receive, inference: Coroutine[Any, Any, InferenceResponse]
) -> InferenceResponse:
    """Await `inference`, but cancel it when the client closes the connection meanwhile."""
    running = asyncio.ensure_future(inference)
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((running, gone), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise _ClientGoneError("the client closed the connection")
    finally:
        running.cancel()
        gone.cancel()


def _names_inference(path: str) -> bool:
    """Tell whether a request is one for inference, though for a model that is not here."""
    return path.startswith("/v2/models/") and path.endswith("/infer")


def _ok(document: dict[str, Any]) -> Answer:
    return Answer(200, orjson.dumps(document))


def _error(
    status: int, message: str, headers: Headers | None = None, *, close: bool = False
) -> Answer:
    return Answer(status, orjson.dumps({"error": message}), headers or [], close)


def _wrong_method(method: str, allowed: str) -> Answer:
    phrase = HTTPStatus(405).phrase
    return _error(405, f"{phrase}: {method}; allowed: {allowed}", [(b"allow", allowed.encode())])
