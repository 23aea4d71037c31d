"""What Prometheus may ask about this server."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

# a timestamp beside each series doubles what is scraped, and nothing reads it
disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client has no type for it

_LABELS = ("model", "revision")
_LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
# The client went away before its answer; nginx's number for it.
CLIENT_CLOSED_REQUEST = 499
# NB: a counter that appears with its first event has no increase at that event, so that the first
# error of a revision would be invisible to `increase()`. All series exist from the start.
_KNOWN_CODES = (200, 400, 404, 405, 408, 413, 415, CLIENT_CLOSED_REQUEST, 500, 503, 504)


class Metrics:
    """The metrics of one model and revision, in a registry of their own."""

    def __init__(self, model: str, revision: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._identity = (model, revision)
        self._requests = Counter(
            "model_server_requests",
            "Inference requests finished, by HTTP status code.",
            (*_LABELS, "code"),
            registry=self.registry,
        )
        self._by_code = {
            code: self._requests.labels(*self._identity, code) for code in _KNOWN_CODES
        }
        self.duration_s = self._histogram(
            "model_server_request_duration_seconds",
            "From the head of an inference request to its answer.",
        )
        self.queue_s = self._histogram(
            "model_server_queue_duration_seconds", "Wait of an inference request for its run."
        )
        self.compute_s = self._histogram(
            "model_server_compute_duration_seconds", "Run of the model for an inference request."
        )
        self.in_flight = self._gauge(
            "model_server_requests_in_flight", "Inference requests that have no answer yet."
        )
        self._queue_depth = self._gauge(
            "model_server_queue_depth", "Inference requests that wait for their run."
        )
        self.load_s = self._gauge(
            "model_server_model_load_seconds",
            "From the start of the download to the end of the warm-up.",
        )
        self._ready = self._gauge(
            "model_server_ready", "1 while the model is loaded and the server does not drain."
        )

    def observe(self, *, ready: Callable[[], bool], queue_depth: Callable[[], int]) -> None:
        """Read readiness and queue depth from their owner at each scrape."""
        self._ready.set_function(lambda: float(ready()))
        self._queue_depth.set_function(lambda: float(queue_depth()))

    def request(self) -> "RequestTimer":
        """Return a context that counts one inference request."""
        return RequestTimer(self)

    def finished(self, code: int, duration_s: float) -> None:
        """Count an inference request that was answered with the HTTP status `code`."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests.labels(*self._identity, code)
        counter.inc()
        self.duration_s.observe(duration_s)

    def _histogram(self, name: str, text: str) -> Histogram:
        metric = Histogram(name, text, _LABELS, registry=self.registry, buckets=_LATENCY_BUCKETS_S)
        return metric.labels(*self._identity)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, _LABELS, registry=self.registry).labels(*self._identity)


class RequestTimer:
    """Counts a request as in flight, then as finished with `code`."""

    __slots__ = ("_metrics", "_started", "code")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.code = 500

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._metrics.in_flight.inc()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._metrics.in_flight.dec()
        self._metrics.finished(self.code, time.perf_counter() - self._started)


class Exporter:
    """Serves a registry on a port and threads of its own: a busy event loop delays no scrape."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, host, registry)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
