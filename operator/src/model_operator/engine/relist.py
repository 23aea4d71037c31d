"""Full lists, one for each kind: at the start, and again and again to find what watches missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model_operator.adapters.kube import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    METRIC_SOURCE,
    MODEL_DEPLOYMENT,
    MODEL_REVISION,
    POD,
    SERVICE,
    Kube,
    KubeError,
    Resource,
)
from model_operator.api.labels import MANAGED_BY, MANAGED_BY_VALUE
from model_operator.engine.store import Key, Store

logger = logging.getLogger(__name__)

CHILD_SELECTOR: Final = f"{MANAGED_BY}={MANAGED_BY_VALUE}"
OWN_KINDS: Final = (METRIC_SOURCE, MODEL_REVISION, MODEL_DEPLOYMENT)
CHILD_KINDS: Final = (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET, HTTP_ROUTE, POD)
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Relist:
    """Keeps the store complete.

    Attributes:
        namespaces: Namespaces to look after; none for all.
        add: Has a ModelDeployment worked on.
    """

    kube: Kube
    store: Store
    namespaces: tuple[str, ...]
    add: Callable[[Key], None]

    async def first(self) -> None:
        """Fill the store; tried until it succeeds, as nothing can be decided before."""
        while True:
            try:
                await self.all()
            except KubeError as error:
                logger.warning("the first lists failed: %s", error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def forever(self, interval_s: float) -> None:
        """List again and again; one that fails is made up for by the next."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.all()
            except KubeError as error:
                logger.warning("a list failed: %s", error)

    async def all(self) -> None:
        """List every kind and have every ModelDeployment worked on."""
        for resource in OWN_KINDS:
            await self._one(resource, "")
        for resource in CHILD_KINDS:
            await self._one(resource, CHILD_SELECTOR)
        for manifest in self.store.of_kind(MODEL_DEPLOYMENT.kind):
            self.add(Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"]))

    async def _one(self, resource: Resource, selector: str) -> None:
        scopes = self.namespaces if resource.namespaced and self.namespaces else ("",)
        for namespace in scopes:
            listing = await self.kube.list(resource, namespace=namespace, selector=selector)
            for key in self.store.replace(resource.kind, listing, namespace=namespace):
                self.add(key)
