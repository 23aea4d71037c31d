"""Puts the engine together, runs it, and ends it in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine, Hashable

from model_operator.adapters.kube import KubeClient, KubeError, load_configuration
from model_operator.adapters.ownership import NotOursError
from model_operator.adapters.traffic.httproute import HttpRouteTraffic
from model_operator.core.verdict import Outcome, Verdict
from model_operator.engine.analyst import Analyst
from model_operator.engine.announce import Announcer
from model_operator.engine.apply import Applier
from model_operator.engine.drains import Drains
from model_operator.engine.preflight import PodSignatures, SignatureReader
from model_operator.engine.queue import WorkQueue
from model_operator.engine.reconcile import Reconciler
from model_operator.engine.records import Recorder
from model_operator.engine.relist import Relist
from model_operator.engine.sources import Sources
from model_operator.engine.store import Key, Store
from model_operator.engine.telemetry import HealthServer, Metrics
from model_operator.engine.triggers import Watches
from model_operator.settings import Settings

logger = logging.getLogger(__name__)


class Engine:
    """Everything between the API server and the decisions.

    Args:
        settings: How it runs.
        kube: The API; closed by whoever opened it.
        metrics: What it tells of itself.
    """

    def __init__(self, settings: Settings, kube: KubeClient, metrics: Metrics) -> None:
        engine = settings.engine
        self.metrics = metrics
        self.store = Store()
        self.queue: WorkQueue[Key] = WorkQueue(
            self._reconcile, failed=self._failed, workers=engine.workers
        )
        self.metrics.watch_queue(lambda: self.queue.depth)
        self.sources = Sources(kube, self.store, settings.cluster.own_namespace)
        self.analyst = Analyst(self.sources.find, self._verdict_changed, time.time)
        self.drains = Drains(
            self.sources.activity,
            self.queue.add,
            settle_s=engine.settle_s,
            give_up_s=engine.drain_give_up_s,
        )
        self.pod_signatures = PodSignatures(self.store)
        self.signatures = SignatureReader(self.store, self.pod_signatures.ask, self.queue.add)
        self.relist = Relist(kube, self.store, settings.cluster.namespaces, self.queue.add)
        self.reconciler = Reconciler(
            kube=kube,
            store=self.store,
            applier=Applier(kube, HttpRouteTraffic(kube), self.store, settings.server.image),
            analyst=self.analyst,
            drains=self.drains,
            signatures=self.signatures,
            recorder=Recorder(kube, self.store, self.analyst, time.time),
            announcer=Announcer(kube, self.metrics, time.time),
            metrics=self.metrics,
            add_after=self.queue.add_after,
            clock=time.time,
            rollback_enabled=engine.rollback_enabled,
        )

    async def close(self) -> None:
        """End what runs beside the queue."""
        self.analyst.close()
        self.drains.close()
        self.signatures.close()
        await self.pod_signatures.close()
        await self.sources.close()

    async def _reconcile(self, key: Key) -> None:
        await self.reconciler(key)

    def _failed(self, key: Hashable, error: Exception, retry_s: float) -> None:
        self.metrics.failed(error)
        # where the API's answer says all, a traceback would only hide it
        trace = None if isinstance(error, KubeError | NotOursError) else error
        logger.warning("%s comes again in %.1f s: %s", key, retry_s, error, exc_info=trace)

    def _verdict_changed(self, key: Key, verdict: Verdict) -> None:
        logger.info("%s: verdict %s: %s", key, verdict.outcome, verdict.message)
        self.metrics.verdict(key, verdict.outcome, failed=verdict.outcome is Outcome.FAIL)
        self.queue.add(key)


async def run(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run the operator until `stop`; without one, until SIGTERM or SIGINT.

    The end: nothing new is begun, what has been begun is finished, then the watches end.

    Raises:
        RuntimeError: A part of it ended by itself.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    configuration = await load_configuration(settings.cluster.kubeconfig)
    metrics = Metrics()
    kube = KubeClient(configuration, timeout_s=settings.cluster.timeout_s, answered=metrics.called)
    engine = Engine(settings, kube, metrics)
    watches = Watches(engine.store, engine.queue.add, configuration, settings.cluster.namespaces)
    health = HealthServer(
        engine.metrics, host=settings.telemetry.host, port=settings.telemetry.port
    )
    try:
        await health.start()
        logger.info("health and metrics on port %d", health.port)
        if await _before(engine.relist.first(), stop):
            health.ready = True
            await _work(engine, watches, settings.engine.relist_s, stop)
    finally:
        health.ready = False
        await engine.close()
        await health.stop()
        await kube.close()


async def _work(engine: Engine, watches: Watches, relist_s: float, stop: asyncio.Event) -> None:
    queue = asyncio.create_task(engine.queue.run(), name="queue")
    relist = asyncio.create_task(engine.relist.forever(relist_s), name="relist")
    watching = asyncio.create_task(watches.run(), name="watches")
    stopping = asyncio.create_task(stop.wait())
    parts = (queue, relist, watching)
    # NB: a part that ends by itself is a failure: without watches or queue nothing would be
    # decided, and a restart is better than that
    await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
    failed = [part for part in parts if part.done()]
    stopping.cancel()
    relist.cancel()
    engine.queue.stop()
    await asyncio.wait((queue,))
    watches.stop()
    await asyncio.gather(*parts, return_exceptions=True)
    for part in failed:
        raise RuntimeError(f"{part.get_name()} ended") from part.exception()


async def _before(work: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Whether `work` was done before `stop`."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        await task
        return True
    task.cancel()
    return False
