"""Finds the metrics source that a query is meant for."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from model_operator.adapters.kube import (
    SECRET,
    ForbiddenError,
    Kube,
    KubeError,
    NotFoundError,
)
from model_operator.adapters.pods import PodsSource, PodTarget
from model_operator.adapters.prometheus import PrometheusSource
from model_operator.adapters.sources import QueryFailedError, Source
from model_operator.api.parse import InvalidSpec, parse_metric_source, parse_spec
from model_operator.api.samples import POD_LABEL, Failure, FailureKind, Query, Samples
from model_operator.api.types import PODS_SOURCE, MetricSourceSpec, SecretKeyRef
from model_operator.core.pod_template import METRICS_PORT
from model_operator.engine.drains import Activity
from model_operator.engine.store import Key, Manifest, Store, is_deleting, revision_of
from model_operator.engine.workload import is_ready

_CREDENTIALS_S: Final = 60.0
"""Credentials are read again after this: a Secret may have been rotated."""
_DRAIN_TIMEOUT_S: Final = 2.0


class Administered:
    """A MetricSource's Prometheus, with credentials from the operator's namespace."""

    def __init__(self, kube: Kube, own_namespace: str, name: str, spec: MetricSourceSpec) -> None:
        self._kube = kube
        self._own_namespace = own_namespace
        self._name = name
        self.spec = spec
        self._source: PrometheusSource | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._source is not None:
            await self._source.close()

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        """Ask the Prometheus.

        Raises:
            QueryFailedError: It did not answer, or its credentials cannot be read.
        """
        source = await self._current()
        return await source.query(query, timeout_s=timeout_s)

    async def _current(self) -> PrometheusSource:
        async with self._reading:
            if self._source is None or (
                self._has_secrets() and time.monotonic() - self._read_at > _CREDENTIALS_S
            ):
                await self._connect()
        if self._source is None:
            raise QueryFailedError(FailureKind.UNAVAILABLE, f"source {self._name} is closed")
        return self._source

    def _has_secrets(self) -> bool:
        prometheus = self.spec.prometheus
        return prometheus.bearer_token is not None or prometheus.tls is not None

    async def _connect(self) -> None:
        prometheus = self.spec.prometheus
        token = await self._secret(prometheus.bearer_token)
        ca_pem = await self._secret(prometheus.tls.ca_secret if prometheus.tls else None)
        try:
            source = PrometheusSource(self._name, prometheus, token=token, ca_pem=ca_pem)
        except (ValueError, OSError) as error:
            raise QueryFailedError(
                FailureKind.CONFIGURATION, f"source {self._name}: its CA cannot be used: {error}"
            ) from error
        await self.close()
        self._source, self._read_at = source, time.monotonic()

    async def _secret(self, reference: SecretKeyRef | None) -> str | None:
        if reference is None:
            return None
        where = f"source {self._name}: Secret {self._own_namespace}/{reference.name}"
        try:
            secret = await self._kube.get(SECRET, self._own_namespace, reference.name)
            return base64.b64decode(secret["data"][reference.key]).decode().strip()
        except (NotFoundError, ForbiddenError) as error:
            raise QueryFailedError(FailureKind.CONFIGURATION, f"{where}: {error}") from error
        except KubeError as error:
            raise QueryFailedError(FailureKind.UNAVAILABLE, f"{where}: {error}") from error
        except (KeyError, ValueError) as error:
            raise QueryFailedError(
                FailureKind.CONFIGURATION, f"{where} has no key {reference.key} with a text"
            ) from error


@dataclass(slots=True)
class Sources:
    """All sources: the pods themselves, and one for each MetricSource.

    Attributes:
        own_namespace: The operator's own, where the Secrets of MetricSources are.
    """

    kube: Kube
    store: Store
    own_namespace: str
    pods: PodsSource = field(init=False)
    _lingering: PodsSource = field(init=False)
    _administered: dict[str, Administered] = field(default_factory=dict)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Let the pods be looked up in the store."""
        self.pods = PodsSource(self._targets)
        self._lingering = PodsSource(self._lingering_targets)

    def find(self, query: Query) -> Source | Failure:
        """The source of a query, or why there is none that it may ask."""
        name = query.source
        if name == PODS_SOURCE:
            return self.pods
        manifest = self.store.get("MetricSource", "", name)
        if manifest is None:
            return Failure(FailureKind.CONFIGURATION, f"there is no MetricSource {name}")
        try:
            spec = parse_metric_source(manifest).spec
        except InvalidSpec as error:
            return Failure(FailureKind.CONFIGURATION, f"MetricSource {name}: {error}")
        if spec.namespaces and query.namespace not in spec.namespaces:
            return Failure(
                FailureKind.CONFIGURATION,
                f"MetricSource {name} does not serve the namespace {query.namespace}",
            )
        return self._source(name, spec)

    async def activity(self, key: Key, revision: str) -> Activity | None:
        """What requests reach a revision's pods, for its drain.

        Pods that are being deleted count: a gateway that is late still sends to them.

        Returns:
            None when a pod that is ready does not tell.
        """
        pods = self._pods(key.namespace, revision)
        ready = {pod["metadata"]["name"] for pod in pods if is_ready(pod)}
        if not self._lingering_targets(key.namespace, revision):
            return Activity({}, 0.0)
        try:
            finished = await self._count("model_server_requests_total", key, revision)
            running = await self._count("model_server_requests_in_flight", key, revision)
        except QueryFailedError:
            return None
        return Activity(finished, sum(running.values())) if ready <= running.keys() else None

    async def close(self) -> None:
        """Close all connections."""
        await self.pods.close()
        await self._lingering.close()
        for source in self._administered.values():
            await source.close()

    async def _count(self, metric: str, key: Key, revision: str) -> dict[str, float]:
        query = Query(
            metric="drain",
            text=f"sum by (pod) ({metric})",
            source=PODS_SOURCE,
            namespace=key.namespace,
            revision=revision,
        )
        samples = await self._lingering.query(query, timeout_s=_DRAIN_TIMEOUT_S)
        return {series.label(POD_LABEL): series.value for series in samples.series}

    def _source(self, name: str, spec: MetricSourceSpec) -> Administered:
        known = self._administered.get(name)
        if known is not None and known.spec == spec:
            return known
        if known is not None:
            task = asyncio.get_running_loop().create_task(known.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        source = Administered(self.kube, self.own_namespace, name, spec)
        self._administered[name] = source
        return source

    def _pods(self, namespace: str, revision: str) -> list[Manifest]:
        owner = Key(namespace, revision.rpartition("-")[0])
        return [pod for pod in self.store.children(owner, "Pod") if revision_of(pod) == revision]

    def _targets(self, namespace: str, revision: str) -> list[PodTarget]:
        return _scrapable(pod for pod in self._pods(namespace, revision) if not is_deleting(pod))

    def _lingering_targets(self, namespace: str, revision: str) -> list[PodTarget]:
        return _scrapable(self._pods(namespace, revision))


def _scrapable(pods: Iterable[Manifest]) -> list[PodTarget]:
    return [
        PodTarget(pod["metadata"]["name"], pod["status"]["podIP"], METRICS_PORT)
        for pod in pods
        if pod.get("status", {}).get("podIP") and pod["status"].get("phase") == "Running"
    ]


def users_of(store: Store, source: str) -> list[Key]:
    """ModelDeployments whose analysis asks a MetricSource."""
    users = []
    for manifest in store.of_kind("ModelDeployment"):
        try:
            analysis = parse_spec(manifest).rollout.analysis
        except InvalidSpec:
            continue
        if source in {analysis.metric_source, *(m.metric_source for m in analysis.metrics)}:
            users.append(Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
    return users
