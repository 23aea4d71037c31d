"""Traffic by the weights of a Gateway API HTTPRoute."""

from __future__ import annotations

from model_operator.adapters.applied import is_applied
from model_operator.adapters.kube import HTTP_ROUTE, Kube, NotFoundError
from model_operator.adapters.ownership import require_same_owner
from model_operator.adapters.traffic.base import Manifest


class HttpRouteTraffic:
    """`Traffic` over one HTTPRoute for each ModelDeployment, named like it."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def read(self, namespace: str, name: str) -> Manifest | None:
        """The live route."""
        try:
            return await self._kube.get(HTTP_ROUTE, namespace, name)
        except NotFoundError:
            return None

    async def write(self, desired: Manifest, live: Manifest | None) -> Manifest | None:
        """Set the weights."""
        if live is None:
            # NB: an apply without a version would take over a route that was not known of
            metadata = desired["metadata"]
            live = await self.read(metadata["namespace"], metadata["name"])
        if live is None:
            return await self._kube.apply(desired)
        require_same_owner(live, desired)
        if is_applied(desired, live):
            return None
        version = live["metadata"]["resourceVersion"]
        written = await self._kube.apply(desired, resource_version=version)
        return None if written["metadata"]["resourceVersion"] == version else written
