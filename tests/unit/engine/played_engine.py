"""The engine without watches and HTTP: an API in memory, virtual time, and everything around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from model_operator.adapters.inference import UnreadableError
from model_operator.adapters.traffic.httproute import HttpRouteTraffic
from model_operator.api.samples import POD_LABEL, Query, Samples, Series
from model_operator.api.types import Signature
from model_operator.core.httproute import read_weights
from model_operator.core.verdict import Verdict
from model_operator.engine.analyst import Analyst
from model_operator.engine.announce import Announcer
from model_operator.engine.apply import Applier
from model_operator.engine.drains import Activity, Drains
from model_operator.engine.preflight import SignatureReader
from model_operator.engine.queue import WorkQueue
from model_operator.engine.reconcile import Reconciler
from model_operator.engine.records import Recorder
from model_operator.engine.store import Key, Store, owner_of
from model_operator.engine.telemetry import Metrics
from tests.builders import NOW, digest, manifest
from tests.unit.engine.fake_kube import FakeKube

Manifest = dict[str, Any]
KEY = Key("vision", "digits")
STEPS = [{"setWeight": {"percent": percent, "duration": "10s"}} for percent in (10, 50)]
ERRORS = {
    "name": "errors",
    "type": "Events",
    "events": {"bad": "bad", "total": "total", "maxRate": "0.01", "minEvents": 10},
}
ROLLOUT = {
    "steps": STEPS,
    "bake": {"duration": "20s"},
    "analysis": {"interval": "1s", "metricSource": "fake", "metrics": [ERRORS]},
}


def wall_time() -> float:
    return NOW + asyncio.get_running_loop().time()


class World:
    """The engine without watches and HTTP, in virtual time."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.now = clock or wall_time
        self.kube = FakeKube()
        self.store = Store()
        self.bad_share = 0.0
        self.unready: set[str] = set()
        self.told: dict[str, Signature] = {}
        self.asked: list[str] = []
        self.answer_s = 0.1
        self.pod_ip = ""
        self.weights: list[dict[str, int]] = []
        self.errors: list[Exception] = []
        self.queue: WorkQueue[Key] = WorkQueue(
            self._reconcile, failed=self._failed, jitter=lambda: 0.5
        )
        analyst = Analyst(lambda _query: self, self._verdict_changed, self.now)
        self.analyst = analyst
        self.drains = Drains(self._activity, self.queue.add)
        self.signatures = SignatureReader(self.store, self._signature, self.queue.add)
        metrics = Metrics()
        self.reconciler = Reconciler(
            kube=self.kube,
            store=self.store,
            applier=Applier(self.kube, HttpRouteTraffic(self.kube), self.store, "server:1"),
            analyst=analyst,
            drains=self.drains,
            signatures=self.signatures,
            recorder=Recorder(self.kube, self.store, analyst, self.now),
            announcer=Announcer(self.kube, metrics, self.now),
            metrics=metrics,
            add_after=self.queue.add_after,
            clock=self.now,
        )
        self.kube.changed = self._changed

    def take_over(self, kube: FakeKube) -> None:
        """Start from the objects of another world, as an operator does from its first lists."""
        self.kube._objects, self.kube._versions = kube._objects, kube._versions
        for written in list(kube._objects.values()):
            self._changed(written, False)  # noqa: FBT003 - as the watches do

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        """Ten requests a second, a share of them bad."""
        del timeout_s
        total = 10 * (self.now() - NOW)
        value = total if query.text == "total" else total * self.bad_share
        return Samples((Series(((POD_LABEL, "a"),), round(value)),))

    def create(self, seed: int = 1) -> None:
        model = {"uri": "https://models.example/m.onnx", "digest": digest(seed)}
        self.kube.put(manifest(model=model, replicas=2, rollout=ROLLOUT))

    def roll_out(self, seed: int) -> None:
        live = self.kube.peek("ModelDeployment", "digits")
        live["spec"]["model"]["digest"] = digest(seed)
        self.kube.put(live)

    @property
    def status(self) -> Manifest:
        found: Manifest = self.kube.peek("ModelDeployment", "digits")["status"]
        return found

    async def until(self, state: str) -> Manifest:
        await self.until_true(lambda: bool(self.status["rollout"]["state"] == state))
        return self.status

    async def until_true(self, condition: Callable[[], bool], timeout_s: float = 300.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - in virtual time looking costs nothing
                await asyncio.sleep(0.1)

    async def _reconcile(self, key: Key) -> None:
        await self.reconciler(key)

    def _failed(self, _key: object, error: Exception, _retry_s: float) -> None:
        self.errors.append(error)

    def _verdict_changed(self, key: Key, _verdict: Verdict) -> None:
        self.queue.add(key)

    async def _signature(self, _key: Key, revision: str) -> Signature:
        self.asked.append(revision)
        await asyncio.sleep(self.answer_s)
        if revision not in self.told:
            raise UnreadableError("it does not tell")
        return self.told[revision]

    async def _activity(self, _key: Key, _revision: str) -> Activity | None:
        return Activity({"a": 1.0}, 0.0)

    def _changed(self, written: Manifest, deleted: bool) -> None:  # noqa: FBT001 - as the watches
        """The watches; and the controllers and the gateway, which answer at once."""
        if deleted:
            self.store.remove(written)
        else:
            self.store.put(written)
        if written["kind"] == "HTTPRoute" and not deleted:
            self._gateway(written)
        if written["kind"] == "Deployment" and not deleted:
            self.pods(written)
        owner = owner_of(written)
        if owner is not None:
            self.queue.add(owner)

    def _gateway(self, route: Manifest) -> None:
        weights = read_weights(route)
        if not self.weights or self.weights[-1] != weights:
            self.weights.append(weights)
        generation = route["metadata"]["generation"]
        status = {
            "parents": [
                {
                    "parentRef": reference,
                    "conditions": [
                        {"type": kind, "status": "True", "observedGeneration": generation}
                        for kind in ("Accepted", "ResolvedRefs")
                    ],
                }
                for reference in route["spec"]["parentRefs"]
            ]
        }
        if route.get("status") != status:
            self.kube.put({**route, "status": status})

    def pods(self, deployment: Manifest) -> None:
        """Pods of a Deployment, ready at once unless the test has it otherwise."""
        name = deployment["metadata"]["name"]
        ready = "False" if name in self.unready else "True"
        for number in range(deployment["spec"]["replicas"]):
            self.kube.put(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": f"{name}-{number}",
                        "namespace": KEY.namespace,
                        "labels": deployment["metadata"]["labels"],
                    },
                    "status": {
                        "podIP": self.pod_ip,
                        "conditions": [{"type": "Ready", "status": ready}],
                    },
                }
            )


@asynccontextmanager
async def running(world: World | None = None) -> AsyncIterator[World]:
    world = world or World()
    task = asyncio.create_task(world.queue.run())
    try:
        yield world
    finally:
        world.queue.stop()
        await task
        world.analyst.close()
        world.drains.close()
        world.signatures.close()


def stable(world: World) -> str:
    name: str = world.status["stable"]["revision"]
    return name
