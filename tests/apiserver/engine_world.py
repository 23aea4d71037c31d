"""The operator's engine against a real API, with the world around it played.

Real: etcd, kube-apiserver, kube-controller-manager (Deployments make pods), the engine with its
watches. Played: the kubelet (pods get ready, or end as told), the gateway (accepts routes and
sends requests by their weights) and the pods' metrics ports, each on a loopback address.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import Configuration

from model_operator.adapters.kube import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    EVENT,
    HTTP_ROUTE,
    MODEL_DEPLOYMENT,
    MODEL_REVISION,
    POD,
    RESOURCES,
    SERVICE,
    ConflictError,
    KubeClient,
    NotFoundError,
    Resource,
    ServerError,
    ThrottledError,
    UnreachableError,
    load_configuration,
)
from model_operator.api.labels import REQUEST
from model_operator.engine.run import run
from model_operator.settings import (
    ClusterSettings,
    EngineSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)
from tests.apiserver.informer import Informer
from tests.apiserver.manifests import digest, model_deployment
from tests.apiserver.played_gateway import Gateway
from tests.apiserver.played_kubelet import Behaviour, Kubelet, PlayedPod, put

__all__ = [
    "Behaviour",
    "Feeds",
    "World",
    "condition",
    "digest",
    "model_deployment",
    "operator",
    "put",
    "resource_versions",
    "settings",
    "world",
]

Manifest = dict[str, Any]
_TICK_S: Final = 0.05
_AWAY: Final = (ConflictError, NotFoundError, UnreachableError, ServerError, ThrottledError)


class Feeds:
    """What the played parts see of the API: pods and routes, of one namespace or of all."""

    def __init__(self, configuration: Configuration, namespace: str = "") -> None:
        self.pods = Informer(configuration, POD, namespace)
        self.routes = Informer(configuration, HTTP_ROUTE, namespace)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pods.run())
            group.create_task(self.routes.run())


class World:
    """Plays kubelet, gateway and clients in one namespace."""

    def __init__(self, kube: KubeClient, namespace: str, feeds: Feeds) -> None:
        self.kube = kube
        self.namespace = namespace
        self.kubelet = Kubelet(kube, feeds.pods, namespace)
        self.gateway = Gateway(kube, feeds.routes, self.kubelet, namespace)

    async def play(self) -> None:
        # requests go on while the API is away: no real data plane waits for it either
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clients())
            group.create_task(self._controllers())

    async def _clients(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            self.gateway.send(now - last)
            last = now

    async def _controllers(self) -> None:
        while True:
            with suppress(*_AWAY):
                await self.kubelet.sync()
                await self.gateway.sync()
            await asyncio.sleep(_TICK_S)

    async def close(self) -> None:
        await self.kubelet.close()

    # -------------------------------------------------------------------- what a test can arrange

    @property
    def behaviours(self) -> dict[str, Behaviour]:
        return self.kubelet.behaviours

    @property
    def requests_per_s(self) -> float:
        return self.gateway.requests_per_s

    @requests_per_s.setter
    def requests_per_s(self, rate: float) -> None:
        self.gateway.requests_per_s = rate

    @property
    def accept_routes(self) -> bool:
        return self.gateway.accept

    @accept_routes.setter
    def accept_routes(self, accept: bool) -> None:
        self.gateway.accept = accept

    async def create(self, manifest: Manifest) -> Manifest:
        return await self.kube.create(manifest)

    async def delete(self, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        await self.kube.delete(
            RESOURCES[manifest["kind"]], self.namespace, metadata["name"], uid=metadata["uid"]
        )

    async def change(
        self, edit: Callable[[Manifest], None], resource: Resource = MODEL_DEPLOYMENT
    ) -> Manifest:
        """Edit an object as another client would: read, change, write."""
        while True:
            live = await self.get(resource, "digits")
            edit(live)
            with suppress(ConflictError):
                return await put(self.kube, live)

    async def ask(self, action: str, revision: str) -> None:
        """A person's request, as the kubectl plugin writes it."""
        request = {"id": uuid.uuid4().hex, "action": action, "revision": revision}

        def annotate(manifest: Manifest) -> None:
            manifest["metadata"].setdefault("annotations", {})[REQUEST] = json.dumps(request)

        await self.change(annotate)

    # ----------------------------------------------------------------------- what a test looks at

    @property
    def pods(self) -> dict[str, PlayedPod]:
        return self.kubelet.pods

    @property
    def weights_seen(self) -> list[dict[str, int]]:
        return self.gateway.weights_seen

    @property
    def answered(self) -> Counter[str]:
        return self.gateway.answered

    @property
    def lost(self) -> Counter[str]:
        return self.gateway.lost

    async def get(self, resource: Resource, name: str) -> Manifest:
        return await self.kube.get(resource, self.namespace, name)

    async def mdep(self, name: str = "digits") -> Manifest:
        return await self.get(MODEL_DEPLOYMENT, name)

    async def status(self, name: str = "digits") -> Manifest:
        status: Manifest = (await self.mdep(name)).get("status") or {}
        return status

    async def route(self, name: str = "digits") -> Manifest:
        return await self.get(HTTP_ROUTE, name)

    async def deployments(self) -> list[str]:
        listing = await self.kube.list(DEPLOYMENT, namespace=self.namespace)
        return [item["metadata"]["name"] for item in listing.items]

    async def revisions(self) -> dict[str, Manifest]:
        listing = await self.kube.list(MODEL_REVISION, namespace=self.namespace)
        return {item["metadata"]["name"]: item for item in listing.items}

    async def events(self) -> list[str]:
        listing = await self.kube.list(EVENT, namespace=self.namespace)
        found = [
            item for item in listing.items if item.get("reportingComponent") == "model-operator"
        ]
        found.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
        return [item["reason"] for item in found]

    async def until_event(self, reason: str) -> None:
        async def posted() -> bool:
            return reason in await self.events()

        await self.until(f"event {reason}", posted)

    async def until(
        self, what: str, condition: Callable[[], Awaitable[bool]], timeout_s: float = 20.0
    ) -> float:
        """Wait for the world to become so; seconds that it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < timeout_s:
            with suppress(*_AWAY):
                if await condition():
                    return time.monotonic() - begun
            await asyncio.sleep(_TICK_S)
        status = json.dumps(await self.status(), indent=1)
        raise AssertionError(f"not within {timeout_s} s: {what}\n{status}")

    async def until_ready(self, name: str = "digits") -> str:
        """Wait until a ModelDeployment serves; its stable revision."""

        async def ready() -> bool:
            return bool(condition(await self.status(name), "Ready")["status"] == "True")

        await self.until("Ready", ready)
        revision: str = (await self.status(name))["stable"]["revision"]
        return revision

    async def until_state(self, state: str, timeout_s: float = 20.0) -> Manifest:
        async def reached() -> bool:
            rollout = (await self.status()).get("rollout") or {}
            return bool(rollout.get("state") == state)

        await self.until(state, reached, timeout_s)
        return await self.status()

    async def until_weights(self, *weights: dict[str, int], timeout_s: float = 20.0) -> None:
        """Wait until the gateway has seen exactly these weights, in this order."""

        async def seen() -> bool:
            return self.weights_seen == list(weights)

        try:
            await self.until(f"weights {weights}", seen, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\nseen: {self.weights_seen}") from None


def condition(status: Manifest, kind: str) -> Manifest:
    for found in status.get("conditions") or ():
        if found["type"] == kind:
            entry: Manifest = found
            return entry
    return {"status": "Unknown", "reason": "", "message": ""}


async def resource_versions(played: World) -> dict[str, str]:
    kinds = (
        MODEL_DEPLOYMENT,
        MODEL_REVISION,
        DEPLOYMENT,
        SERVICE,
        DISRUPTION_BUDGET,
        HTTP_ROUTE,
        POD,
    )
    return {
        f"{kind.kind} {item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for kind in kinds
        for item in (await played.kube.list(kind, namespace=played.namespace)).items
    }


def settings(kubeconfig: Path, namespace: str, **engine: Any) -> Settings:
    return Settings(
        server=ServerSettings("registry.example/model-server:1"),
        cluster=ClusterSettings(
            kubeconfig=str(kubeconfig),
            namespaces=(namespace,) if namespace else (),
            own_namespace=namespace or "default",
        ),
        engine=replace(EngineSettings(settle_s=0.4), **engine),
        telemetry=TelemetrySettings(host="127.0.0.1", port=0),
    )


@asynccontextmanager
async def operator(configured: Settings) -> AsyncIterator[None]:
    """The engine, as `model-operator` runs it, until the block ends."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(configured, stop))
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def world(kubeconfig: Path, namespace: str) -> AsyncIterator[World]:
    configuration = await load_configuration(str(kubeconfig))
    kube = KubeClient(configuration)
    feeds = Feeds(configuration, namespace)
    played = World(kube, namespace, feeds)
    playing = [asyncio.create_task(feeds.run()), asyncio.create_task(played.play())]
    try:
        yield played
    finally:
        try:
            for task in playing:
                await end(task)
        finally:
            await played.close()
            await kube.close()


async def end(task: asyncio.Task[None]) -> None:
    """End a part of the world; one that broke down explains a test that failed."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
