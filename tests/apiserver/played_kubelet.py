"""Plays the kubelet: pods get an address, run, become ready or end, and count their requests."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from model_operator.adapters.kube import RESOURCES, KubeClient
from model_operator.api.labels import REVISION
from tests.apiserver.informer import Informer

Manifest = dict[str, Any]
HTTP_PORT: Final = 8080
METRICS_PORT: Final = 9090
PIXELS: Final = {"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}
SCORES: Final = {"name": "scores", "datatype": "FP32", "shape": [-1, 10]}
_addresses = itertools.count(2)


@dataclass(slots=True)
class Behaviour:
    """How the pods of a model behave.

    Attributes:
        error_share: Share of requests that are answered with 500.
        exit_code: Instead of getting ready, the server ends with this code.
        message: Its termination message then.
        ready: Whether pods are ready; changed by a test while they run.
        most_ready: Pods that there is room for: the oldest so many get ready. None is no limit.
        inputs: What the model takes, as in the protocol's metadata.
        outputs: What it gives.
        tells: Whether pods tell that.
    """

    error_share: float = 0.0
    exit_code: int | None = None
    message: str = ""
    ready: bool = True
    most_ready: int | None = None
    inputs: tuple[Manifest, ...] = (PIXELS,)
    outputs: tuple[Manifest, ...] = (SCORES,)
    tells: bool = True


@dataclass(slots=True)
class PlayedPod:
    """A pod's ports on an address of its own: its metrics and what its model takes and gives.

    Attributes:
        answers: How many requests it answered, by code.
        scraped: When its metrics were read, on the monotonic clock.
    """

    name: str
    revision: str
    digest: str
    address: str
    runner: web.AppRunner
    answers: Counter[int] = field(default_factory=Counter)
    scraped: list[float] = field(default_factory=list)
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


@dataclass(slots=True)
class Kubelet:
    """Runs the pods of one namespace.

    Attributes:
        live: The pods as the API has them.
        behaviours: By digest of the model.
        pods: Those that run, by name.
        started: Revision of every pod that ever ran, by name.
    """

    kube: KubeClient
    live: Informer
    namespace: str
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    pods: dict[str, PlayedPod] = field(default_factory=dict)
    started: dict[str, str] = field(default_factory=dict)

    def behaviour(self, model_digest: str) -> Behaviour:
        return self.behaviours.setdefault(model_digest, Behaviour())

    def ready_pods(self, revision: str) -> list[PlayedPod]:
        """Pods of a revision that routers send requests to."""
        pods = [pod for pod in self.pods.values() if pod.revision == revision]
        if not pods:
            return []
        behaviour = self.behaviour(pods[0].digest)  # a revision has one model
        return pods[: behaviour.most_ready] if behaviour.ready else []

    async def sync(self) -> None:
        """Start and end pods, and write down how they are."""
        live = {pod["metadata"]["name"]: pod for pod in self.live.of(self.namespace)}
        for name in [name for name in self.pods if name not in live]:
            await self.pods.pop(name).runner.cleanup()
        for name, pod in live.items():
            if name not in self.pods:
                self.pods[name] = await self._start(pod)
                self.started[name] = self.pods[name].revision
            status = self._status(pod, self.pods[name])
            if not includes(pod.get("status", {}), status):
                whole = {**pod, "status": {**pod.get("status", {}), **status}}
                self.live.put(await put(self.kube, whole, "status"))

    async def close(self) -> None:
        for pod in self.pods.values():
            await pod.runner.cleanup()

    async def _start(self, pod: Manifest) -> PlayedPod:
        arguments = pod["spec"]["containers"][0]["args"]
        flags = dict(argument[2:].partition("=")[::2] for argument in arguments[1:])
        number = next(_addresses)
        # by process, so that test runs side by side do not take each other's ports
        address = f"127.{9 + os.getpid() % 240}.{number // 250}.{number % 250 + 1}"
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
            played.scraped.append(time.monotonic())
            return web.Response(text=played.exposition(flags["name"]))

        async def metadata(_: web.Request) -> web.Response:
            behaviour = self.behaviour(played.digest)
            if not behaviour.tells:
                return web.json_response({"error": "not found"}, status=404)
            return web.json_response(
                {
                    "name": flags["name"],
                    "versions": [played.revision],
                    "platform": "onnx_onnxv1",
                    "inputs": behaviour.inputs,
                    "outputs": behaviour.outputs,
                    "parameters": {"opset.ai.onnx": 17, "producer": "played"},
                }
            )

        application.router.add_get("/metrics", metrics)
        application.router.add_get(f"/v2/models/{flags['name']}", metadata)
        await runner.setup()
        await web.TCPSite(runner, address, HTTP_PORT).start()
        await web.TCPSite(runner, address, METRICS_PORT).start()
        return played

    def _status(self, pod: Manifest, played: PlayedPod) -> Manifest:
        behaviour = self.behaviour(played.digest)
        started = pod["metadata"]["creationTimestamp"]
        ended = behaviour.exit_code is not None
        ready = not ended and played in self.ready_pods(played.revision)
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


async def put(kube: KubeClient, manifest: Manifest, subresource: str = "") -> Manifest:
    """Write an object whole, as clients do that are not the operator."""
    metadata = manifest["metadata"]
    path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"], subresource)
    return await kube._call("PUT", path, body=manifest)


def includes(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and includes(live[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(includes(one, other) for one, other in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)
