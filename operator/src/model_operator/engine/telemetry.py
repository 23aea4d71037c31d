"""What the operator tells of itself: logs, metrics, health."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from model_operator.core.decision import (
    FirstFailed,
    Promoted,
    RolledBack,
    Superseded,
    Transition,
)
from model_operator.engine.store import Key

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
_LABELS: Final = ("namespace", "name", "team")


class Metrics:
    """The operator's own Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rollouts = Counter(
            "model_operator_rollouts",
            "Ends of rollouts by result: promoted, rolled_back, superseded, failed.",
            (*_LABELS, "result"),
            registry=self.registry,
        )
        self._verdicts = Counter(
            "model_operator_verdicts",
            "Changes of an analysis's verdict, by the new one.",
            ("namespace", "name", "outcome"),
            registry=self.registry,
        )
        self._reconciles = Histogram(
            "model_operator_reconcile_duration_seconds",
            "Time that one reconcile took.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._errors = Counter(
            "model_operator_reconcile_errors",
            "Reconciles that failed and come again, by the error's type.",
            ("error",),
            registry=self.registry,
        )
        self._to_route = Histogram(
            "model_operator_verdict_to_route_seconds",
            "From a failing verdict to the route written without weight for the revision.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._drift = Counter(
            "model_operator_route_drift",
            "Routes that others changed and that were restored.",
            ("namespace", "name"),
            registry=self.registry,
        )
        self._depth = Gauge(
            "model_operator_queue_depth",
            "ModelDeployments that wait for a worker.",
            registry=self.registry,
        )
        self._calls = Counter(
            "model_operator_api_requests",
            "Calls to the API server beside the watches, by HTTP method and code.",
            ("method", "code"),
            registry=self.registry,
        )
        self._leader = Gauge(
            "model_operator_leader",
            "1 on the replica that leads, 0 on those that wait.",
            registry=self.registry,
        )
        self._failed_at: dict[Key, float] = {}

    def leads(self, *, leads: bool) -> None:
        """Report whether this process leads."""
        self._leader.set(leads)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Report the queue's depth."""
        self._depth.set_function(depth)

    def transition(self, key: Key, team: str, transition: Transition) -> None:
        """Count the end of a rollout; other transitions are not counted."""
        match transition:
            case Promoted():
                result = "promoted"
            case RolledBack():
                result = "rolled_back"
            case Superseded():
                result = "superseded"
            case FirstFailed():
                result = "failed"
            case _:
                return
        self._rollouts.labels(key.namespace, key.name, team, result).inc()

    def verdict(self, key: Key, outcome: str, *, failed: bool) -> None:
        """Count a changed verdict; the time of a failing one is remembered for its rollback."""
        self._verdicts.labels(key.namespace, key.name, outcome).inc()
        if failed:
            self._failed_at[key] = time.monotonic()

    def lowered(self, key: Key) -> None:
        """The route was written with less weight: after a failing verdict, how long after it."""
        failed_at = self._failed_at.pop(key, None)
        if failed_at is not None:
            self._to_route.observe(time.monotonic() - failed_at)

    def drift(self, key: Key) -> None:
        """Count a restored route."""
        self._drift.labels(key.namespace, key.name).inc()

    def reconciled(self, duration_s: float) -> None:
        """Count a reconcile."""
        self._reconciles.observe(duration_s)

    def failed(self, error: Exception) -> None:
        """Count a reconcile that comes again."""
        self._errors.labels(type(error).__name__).inc()

    def called(self, method: str, code: int) -> None:
        """Count a call to the API server that was answered."""
        self._calls.labels(method, str(code)).inc()

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class HealthServer:
    """Serves /healthz, /readyz and /metrics.

    Attributes:
        ready: Whether it leads and has read everything, or waits to take over.
    """

    def __init__(self, metrics: Metrics, *, host: str, port: int) -> None:
        """Create it; `start` opens the port.

        Args:
            metrics: What /metrics shows.
            host: Address to listen on.
            port: Port to listen on; 0 for any that is free.
        """
        self._metrics = metrics
        self._host, self._requested_port = host, port
        self._runner: web.AppRunner | None = None
        self.ready = False

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._runner is None or not self._runner.addresses:
            return self._requested_port
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Listen."""
        application = web.Application()
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/readyz", self._readiness)
        application.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._requested_port).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readiness(self, _request: web.Request) -> web.Response:
        if self.ready:
            return web.Response(text="ok\n")
        return web.Response(
            status=503, text="the lease, or all that is served, is yet to be read\n"
        )

    async def _exposition(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


class JsonFormatter(logging.Formatter):
    """One JSON object for each line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: str) -> None:
    """Log to standard error from this level on, one JSON object for each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Kopf reports every event that it handles, and that it leaves signals alone outside of the
    # main thread, which is what is wanted of it here
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
