"""A server's life: listen, load, serve, drain."""

import asyncio
import contextlib
import functools
import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import uvicorn

from model_server.config import ServerConfig
from model_server.connection import connection_class
from model_server.dataplane import DataPlane
from model_server.failures import Reason, StartupError
from model_server.golden import check_golden, read_golden
from model_server.metrics import Exporter, Metrics
from model_server.model import Model, load_model, warm_up
from model_server.rest import RestApp
from model_server.storage import Fetcher

_log = logging.getLogger(__name__)

T = TypeVar("T")

_BACKLOG = 2048
# How long requests that were cancelled at the end of the drain may take to say so to their clients.
_LAST_WORDS_S = 1.0


class Server:
    """One model server. `run` is its whole life; `stop` may be called from a signal handler.

    Attributes:
        listening: Set once the ports are open (`http_port`, `metrics_port`).
        ready: Set once the model answers.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.listening = asyncio.Event()
        self.ready = asyncio.Event()
        self.http_port = config.http_port
        self.metrics_port = config.metrics_port
        self._config = config
        self._metrics = Metrics(config.name, config.revision)
        self._dataplane = DataPlane(
            concurrency=config.concurrency, max_waiting=config.max_queue, metrics=self._metrics
        )
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._loading = False

    def stop(self) -> None:
        """Ask for the ordered end; asked again, do not wait for the routers."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> int:
        """Serve until `stop`, then drain.

        Returns:
            How many threads are still busy and may never end.

        Raises:
            StartupError: The ports or the model are not to be had.
        """
        http = _HttpServer(self._http_config())
        with _listener(self._config.host, self._config.http_port) as listener:
            exporter = self._export_metrics()
            serving = asyncio.create_task(http.serve(sockets=[listener]))
            self.http_port = listener.getsockname()[1]
            self.metrics_port = exporter.port
            self.listening.set()
            ports = {"http_port": self.http_port, "metrics_port": self.metrics_port}
            _log.info("listening", extra=ports)
            try:
                # liveness answers from here on, readiness when the model is loaded
                await self._until_stopped(self._load())
                await self._until_stopped(serving)
                await self._drain()
            finally:
                await self._finish(http, serving)
                stuck = self._dataplane.close() + self._loading
                # last, so that the drain can be watched to its end
                exporter.close()
        _log.info("stopped", extra={"stuck_threads": stuck})
        return stuck

    async def _load(self) -> None:
        started = time.perf_counter()
        self._loading = True
        try:
            model = await _in_daemon_thread(lambda: load(self._config))
        finally:
            self._loading = False
        duration_s = time.perf_counter() - started
        self._metrics.load_s.set(duration_s)
        self._dataplane.attach(model)
        self.ready.set()
        signature = asdict(model.signature)
        _log.info("ready", extra={"load_s": round(duration_s, 3), "signature": signature})

    async def _until_stopped(self, work: Any) -> None:
        """Await `work`, but no longer than until `stop`."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            working.result()

    async def _drain(self) -> None:
        """Tell the routers, and serve on while they take this server out."""
        if not self.ready.is_set():
            return
        self._dataplane.begin_drain()
        _log.info("draining", extra=asdict(self._config.drain))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._config.drain.delay_s)

    async def _finish(self, http: "_HttpServer", serving: "asyncio.Task[None]") -> None:
        """Stop accepting, and wait for what was accepted."""
        self._dataplane.begin_drain()
        http.should_exit = True
        await serving
        if http.server_state.tasks:
            _log.warning("drain timed out", extra={"requests": len(http.server_state.tasks)})
            await asyncio.wait(http.server_state.tasks, timeout=_LAST_WORDS_S)

    def _http_config(self) -> uvicorn.Config:
        config = self._config
        app: Any = RestApp(
            self._dataplane,
            self._metrics,
            model=config.name,
            revision=config.revision,
            settings=config.rest,
        )
        return uvicorn.Config(
            app,
            http=connection_class(config.connection, config.revision),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=config.connection.keep_alive_s,
            timeout_graceful_shutdown=math.ceil(config.drain.timeout_s),
        )

    def _export_metrics(self) -> Exporter:
        host, port = self._config.host, self._config.metrics_port
        try:
            return Exporter(self._metrics.registry, host, port)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error


class _HttpServer(uvicorn.Server):
    """uvicorn's server with signals left to `Server`, which drains before it closes anything."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def load(config: ServerConfig) -> Model:
    """Fetch, verify, load and warm up. Blocks for as long as that takes.

    Raises:
        StartupError: One of them failed.
    """
    source = config.source
    path = Fetcher(source.folder, source.limits).fetch(source.uri, source.digest)
    _log.info("digest verified", extra={"path": str(path), "digest": source.digest})
    # read first: a mistake in them need not wait for a large model
    golden = read_golden(source.golden)
    model = load_model(path, config.session)
    duration_s = check_golden(model, golden) if golden else warm_up(model)
    _log.info("model loaded", extra={"warm_up_s": duration_s, **asdict(config.session)})
    return model


def run(config: ServerConfig, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
    """Run a server that SIGTERM and SIGINT stop; returns and raises as `Server.run` does."""

    async def main() -> int:
        server = Server(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        return await server.run()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dualstack = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dualstack
        )
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> StartupError:
    return StartupError(Reason.INVALID_CONFIG, f"cannot listen on {host} port {port}: {error}")


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that does not keep the process alive: a stop must not wait for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(finish: Callable[[], None]) -> None:
        if not future.cancelled():
            finish()

    def target() -> None:
        try:
            finish = functools.partial(future.set_result, work())
        except BaseException as error:  # noqa: BLE001 - re-raised where it is awaited
            finish = functools.partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, finish)

    threading.Thread(target=target, name="loading", daemon=True).start()
    return await future
