"""The operator's engine against a real API, with the world around it played by this module.

Real: etcd, kube-apiserver, kube-controller-manager (Deployments make pods), the engine with its
watches. Played: the kubelet (pods get ready, or end as told), the gateway (accepts routes and
sends requests by their weights) and the pods' metrics ports, each on a loopback address.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from model_operator.adapters.kube import (
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    MODEL_DEPLOYMENT,
    MODEL_REVISION,
    POD,
    RESOURCES,
    ConflictError,
    KubeClient,
    NotFoundError,
    Resource,
    UnreachableError,
    load_configuration,
)
from model_operator.api.labels import API_VERSION, REVISION
from model_operator.api.times import format_time
from model_operator.core.httproute import read_weights
from model_operator.engine.run import run
from model_operator.settings import (
    ClusterSettings,
    EngineSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)

Manifest = dict[str, Any]
METRICS_PORT = 9090
_TICK_S = 0.05
_REQUESTS = "model_server_requests_total"
_OF_REVISION = 'revision="{{ revision }}"'
_addresses = itertools.count(2)


def digest(seed: int) -> str:
    return f"sha256:{seed:064x}"


@dataclass(slots=True)
class Behaviour:
    """How the pods of a model behave.

    Attributes:
        error_share: Share of requests that are answered with 500.
        exit_code: Instead of getting ready, the server ends with this code.
        message: Its termination message then.
        ready: Whether pods are ready; changed by a test while they run.
    """

    error_share: float = 0.0
    exit_code: int | None = None
    message: str = ""
    ready: bool = True


@dataclass(slots=True)
class PlayedPod:
    """A pod's metrics port on an address of its own."""

    name: str
    revision: str
    digest: str
    address: str
    runner: web.AppRunner
    answers: Counter[int] = field(default_factory=Counter)
    owed_errors: float = 0.0

    def answer(self, error_share: float) -> None:
        self.owed_errors += error_share
        code = 200
        if self.owed_errors >= 1:
            self.owed_errors -= 1
            code = 500
        self.answers[code] += 1

    def exposition(self, name: str) -> str:
        labels = f'model="{name}",revision="{self.revision}"'
        lines = [f"model_server_requests_in_flight{{{labels}}} 0"]
        lines += [
            f'model_server_requests_total{{{labels},code="{code}"}} {count}'
            for code, count in sorted(self.answers.items())
        ]
        return "\n".join(lines) + "\n"


class World:
    """Plays kubelet, gateway and clients in one namespace."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.behaviours: dict[str, Behaviour] = {}
        self.requests_per_s = 0.0
        self.accept_routes = True
        self.weights_seen: list[dict[str, int]] = []
        self.answered: Counter[str] = Counter()
        self.pods: dict[str, PlayedPod] = {}
        self._due_requests = 0.0
        self._credits: Counter[str] = Counter()

    async def play(self) -> None:
        while True:
            with suppress(ConflictError, NotFoundError, UnreachableError):
                await self._kubelet()
                await self._gateway()
            await asyncio.sleep(_TICK_S)

    async def close(self) -> None:
        for pod in self.pods.values():
            await pod.runner.cleanup()

    def behaviour(self, model_digest: str) -> Behaviour:
        return self.behaviours.setdefault(model_digest, Behaviour())

    # ------------------------------------------------------------------------------ the kubelet

    async def _kubelet(self) -> None:
        listing = await self.kube.list(POD, namespace=self.namespace)
        live = {pod["metadata"]["name"]: pod for pod in listing.items}
        for name in [name for name in self.pods if name not in live]:
            await self.pods.pop(name).runner.cleanup()
        for name, pod in live.items():
            if name not in self.pods:
                self.pods[name] = await self._start(pod)
            status = self._status(pod, self.pods[name])
            if not _includes(pod.get("status", {}), status):
                await put(
                    self.kube, {**pod, "status": {**pod.get("status", {}), **status}}, "status"
                )

    async def _start(self, pod: Manifest) -> PlayedPod:
        arguments = pod["spec"]["containers"][0]["args"]
        flags = dict(argument[2:].partition("=")[::2] for argument in arguments[1:])
        number = next(_addresses)
        address = f"127.9.{number // 250}.{number % 250 + 1}"
        application = web.Application()
        runner = web.AppRunner(application, access_log=None)
        played = PlayedPod(
            name=pod["metadata"]["name"],
            revision=pod["metadata"]["labels"][REVISION],
            digest=flags["digest"],
            address=address,
            runner=runner,
        )

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(text=played.exposition(flags["name"]))

        application.router.add_get("/metrics", metrics)
        await runner.setup()
        await web.TCPSite(runner, address, METRICS_PORT).start()
        return played

    def _status(self, pod: Manifest, played: PlayedPod) -> Manifest:
        behaviour = self.behaviour(played.digest)
        started = pod["metadata"]["creationTimestamp"]
        ended = behaviour.exit_code is not None
        ready = behaviour.ready and not ended
        container: Manifest = {
            "name": "model-server",
            "image": "model-server",
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": 1 if ended else 0,
            "state": {"running": {"startedAt": started}},
        }
        if ended:
            container["state"] = {
                "terminated": {
                    "exitCode": behaviour.exit_code,
                    "message": behaviour.message,
                    "reason": "Error",
                    "startedAt": started,
                    "finishedAt": started,
                }
            }
        return {
            "phase": "Running",
            "podIP": played.address,
            "podIPs": [{"ip": played.address}],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "lastTransitionTime": started,
                }
            ],
            "containerStatuses": [container],
        }

    # ------------------------------------------------------------------- the gateway and clients

    async def _gateway(self) -> None:
        listing = await self.kube.list(HTTP_ROUTE, namespace=self.namespace)
        for route in listing.items:
            weights = read_weights(route)
            if not self.weights_seen or self.weights_seen[-1] != weights:
                self.weights_seen.append(weights)
            self._send(weights)
            status = {"parents": [self._parent(ref, route) for ref in route["spec"]["parentRefs"]]}
            if not _includes(route.get("status", {}), status):
                await put(self.kube, {**route, "status": status}, "status")

    def _parent(self, reference: Manifest, route: Manifest) -> Manifest:
        accepted = "True" if self.accept_routes else "False"
        return {
            "parentRef": reference,
            "controllerName": "example.com/played",
            "conditions": [
                {
                    "type": kind,
                    "status": accepted,
                    "reason": kind,
                    "message": "" if self.accept_routes else "no such listener",
                    "observedGeneration": route["metadata"]["generation"],
                    "lastTransitionTime": route["metadata"]["creationTimestamp"],
                }
                for kind in ("Accepted", "ResolvedRefs")
            ],
        }

    def _send(self, weights: dict[str, int]) -> None:
        """Smooth weighted round robin, as real gateways do it."""
        self._due_requests += self.requests_per_s * _TICK_S
        while self._due_requests >= 1:
            self._due_requests -= 1
            for revision, weight in weights.items():
                self._credits[revision] += weight
            chosen = max(weights, key=lambda revision: self._credits[revision])
            self._credits[chosen] -= sum(weights.values())
            pods = [
                pod
                for pod in self.pods.values()
                if pod.revision == chosen and self.behaviour(pod.digest).ready
            ]
            if pods:
                pod = min(pods, key=lambda pod: pod.answers.total())
                pod.answer(self.behaviour(pod.digest).error_share)
                self.answered[chosen] += 1

    # ----------------------------------------------------------------------- what a test looks at

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
        found.sort(key=lambda item: item["metadata"]["name"].rpartition(".")[2])
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
            with suppress(NotFoundError, UnreachableError):
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
            return bool((await self.status())["rollout"]["state"] == state)

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


async def put(kube: KubeClient, manifest: Manifest, subresource: str = "") -> Manifest:
    """Write an object whole, as clients do that are not the operator."""
    metadata = manifest["metadata"]
    path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"], subresource)
    return await kube._call("PUT", path, body=manifest)


def condition(status: Manifest, kind: str) -> Manifest:
    for found in status.get("conditions") or ():
        if found["type"] == kind:
            entry: Manifest = found
            return entry
    return {"status": "Unknown", "reason": "", "message": ""}


def model_deployment(namespace: str, seed: int = 1, **spec: Any) -> Manifest:
    steps = [{"setWeight": {"percent": percent, "duration": "600ms"}} for percent in (10, 50)]
    analysis = {
        "interval": "200ms",
        "metrics": [
            {
                "name": "errors",
                "type": "Events",
                "events": {
                    "bad": f'sum by (pod) ({_REQUESTS}{{{_OF_REVISION},code=~"5.."}})',
                    "total": f"sum by (pod) ({_REQUESTS}{{{_OF_REVISION}}})",
                    "maxRate": "0.02",
                    "minEvents": 5,
                },
            }
        ],
        "onInsufficient": {"hold": "60s"},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": namespace},
        "spec": {
            "model": {"uri": "https://models.example/digits/model.onnx", "digest": digest(seed)},
            "replicas": 2,
            "route": {"parentRefs": [{"name": "main", "namespace": "gateway"}]},
            "rollout": {"steps": steps, "bake": {"duration": "2s"}, "analysis": analysis},
            **spec,
        },
    }


def settings(kubeconfig: Path, namespace: str, **engine: Any) -> Settings:
    return Settings(
        server=ServerSettings("registry.example/model-server:1"),
        cluster=ClusterSettings(
            kubeconfig=str(kubeconfig), namespaces=(namespace,), own_namespace=namespace
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
    kube = KubeClient(await load_configuration(str(kubeconfig)))
    played = World(kube, namespace)
    playing = asyncio.create_task(played.play())
    try:
        yield played
    finally:
        playing.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await playing  # a world that broke down explains a test that failed
        finally:
            await played.close()
            await kube.close()


def _includes(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and _includes(live[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_includes(one, other) for one, other in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def now() -> str:
    return format_time(time.time())
