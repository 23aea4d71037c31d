"""Puts the engine together, runs it, and ends it in order."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Coroutine, Hashable
from typing import Any, NoReturn, TypeVar

from kubernetes.aio.client import Configuration

from model_operator.adapters.fence import FencedKube, VersionClient
from model_operator.adapters.kube import Kube, KubeClient, KubeError, load_configuration
from model_operator.adapters.lease import LeaseClient
from model_operator.adapters.ownership import NotOursError
from model_operator.adapters.traffic.httproute import HttpRouteTraffic
from model_operator.core.verdict import Outcome, Verdict
from model_operator.engine.analyst import Analyst
from model_operator.engine.announce import Announcer
from model_operator.engine.apply import Applier
from model_operator.engine.clock import SteadyClock
from model_operator.engine.drains import Drains
from model_operator.engine.leader import Alone, Election, Leadership, Term
from model_operator.engine.preflight import PodSignatures, SignatureReader
from model_operator.engine.queue import WorkQueue
from model_operator.engine.reconcile import Reconciler
from model_operator.engine.records import Recorder
from model_operator.engine.relist import Relist
from model_operator.engine.sources import Sources
from model_operator.engine.store import Key, Store
from model_operator.engine.takeover import Takeover
from model_operator.engine.telemetry import HealthServer, Metrics
from model_operator.engine.triggers import Watches
from model_operator.settings import Settings

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Engine:
    """Everything between the API server and the decisions.

    Args:
        settings: How it runs.
        kube: The API; closed by whoever opened it.
        metrics: What it tells of itself.
        takeover: Worked through for each ModelDeployment before its first reconcile.
    """

    def __init__(
        self, settings: Settings, kube: Kube, metrics: Metrics, store: Store, takeover: Takeover
    ) -> None:
        engine, clock = settings.engine, SteadyClock()
        self.metrics = metrics
        self.store = store
        self._takeover = takeover
        self.queue: WorkQueue[Key] = WorkQueue(
            self._reconcile, failed=self._failed, workers=engine.workers
        )
        self.metrics.watch_queue(lambda: self.queue.depth)
        self.sources = Sources(kube, self.store, settings.cluster.own_namespace)
        self.analyst = Analyst(self.sources.find, self._verdict_changed, clock)
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
            recorder=Recorder(kube, self.store, self.analyst, clock),
            announcer=Announcer(kube, self.metrics, clock),
            metrics=self.metrics,
            add_after=self.queue.add_after,
            clock=clock,
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
        await self._takeover(key)
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


class Replica:
    """What a process has, whether it leads or follows."""

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self.settings = settings
        self.configuration = configuration
        self.metrics = Metrics()
        telemetry, cluster, lease = settings.telemetry, settings.cluster, settings.lease
        self.health = HealthServer(self.metrics, host=telemetry.host, port=telemetry.port)
        called = self.metrics.called
        self.kube = KubeClient(configuration, timeout_s=cluster.timeout_s, answered=called)
        self.versions = VersionClient(configuration, timeout_s=cluster.timeout_s, answered=called)
        # NB: two calls fit into the time for a renewal, so one that hangs does not end the term
        self.leases = LeaseClient(
            configuration, cluster.own_namespace, lease.name, timeout_s=lease.renew_s / 2
        )
        self.leadership: Leadership = Alone()
        if lease.enabled:
            self.leadership = Election(self.leases, lease, following=self._follows)

    def engine(self, term: Term) -> Engine:
        """The engine of a leader: it writes as long as the term lasts."""
        store = Store()
        mark = functools.partial(self.versions.mark, term=term.name)
        takeover = Takeover(store, mark, needed=term.follows_loss)
        fenced = FencedKube(self.kube, self.versions, self.leadership.check)
        return Engine(self.settings, fenced, self.metrics, store, takeover)

    async def close(self) -> None:
        """End what it has."""
        self.health.ready = False
        await self.health.stop()
        for client in (self.leases, self.versions, self.kube):
            await client.close()

    def _follows(self) -> None:
        self.health.ready = True


async def run(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run the operator until `stop`; without one, until SIGTERM or SIGINT.

    A follower reads nothing but the lease: watches that are kept warm would double the load on the
    API server to save the second or two that the first lists take.

    The end: nothing new is begun, what has been begun is finished, then the watches end, and the
    lease is given back.

    Raises:
        LeaseLostError: It led and does not any more.
        RuntimeError: A part of it ended by itself.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    replica = Replica(settings, await load_configuration(settings.cluster.kubeconfig))
    stopping = asyncio.create_task(stop.wait())
    try:
        await replica.health.start()
        logger.info("health and metrics on port %d", replica.health.port)
        acquiring = await _before(replica.leadership.acquire(), stopping)
        if acquiring is not None:
            await _lead(replica, acquiring.result(), stopping)
    finally:
        stopping.cancel()
        await replica.close()


async def _lead(replica: Replica, term: Term, stopping: asyncio.Task[Any]) -> None:
    replica.metrics.leads(leads=True)
    keeping = asyncio.create_task(replica.leadership.keep(), name="keeping the lease")
    engine = replica.engine(term)
    try:
        if await _before(engine.relist.first(), stopping, keeping) is not None:
            replica.health.ready = True
            await _work(engine, replica, stopping, keeping)
    finally:
        await engine.close()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await replica.leadership.release()
        replica.metrics.leads(leads=False)


async def _work(
    engine: Engine, replica: Replica, stopping: asyncio.Task[Any], keeping: asyncio.Task[NoReturn]
) -> None:
    cluster = replica.settings.cluster
    watches = Watches(engine.store, engine.queue.add, replica.configuration, cluster.namespaces)
    relisting = engine.relist.forever(replica.settings.engine.relist_s)
    queue = asyncio.create_task(engine.queue.run(), name="queue")
    relist = asyncio.create_task(relisting, name="relist")
    watching = asyncio.create_task(watches.run(), name="watches")
    parts = (queue, relist, watching)
    try:
        # NB: a part that ends by itself is a failure: without watches or queue nothing would be
        # decided, and a restart is better than that
        await asyncio.wait((*parts, stopping, keeping), return_when=asyncio.FIRST_COMPLETED)
        failed = [part for part in parts if part.done()]
        relist.cancel()
        engine.queue.stop()
        # NB: whoever has lost the lease finishes nothing
        await asyncio.wait((queue, keeping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # NB: whatever happens: the watches' thread would keep a process alive that decides nothing
        queue.cancel()
        relist.cancel()
        watches.stop()
        await asyncio.gather(*parts, return_exceptions=True)
    if keeping.done():
        await keeping
    for part in failed:
        raise RuntimeError(f"{part.get_name()} ended") from part.exception()


async def _before(
    work: Coroutine[Any, Any, _T], *others: asyncio.Task[Any]
) -> asyncio.Task[_T] | None:
    """The finished task of `work`, None when one of the others was done before.

    Raises:
        Exception: What ended `work` or one of the others.
    """
    task = asyncio.create_task(work)
    await asyncio.wait((task, *others), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
        return task
    task.cancel()
    for other in others:
        if other.done():
            await other
    return None
