"""Makes what the leader before has begun to write come too late.

A request can be on its way for long: in a stopped process, in a socket's buffer, in a cut network.
Each names the version of its object that was read while its sender led (see `adapters.fence`).
So before a new leader decides about a ModelDeployment, it gives every object of it a new version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from model_operator.adapters.kube import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    SERVICE,
    NotFoundError,
)
from model_operator.engine.store import Key, Manifest, Store

_WRITTEN: Final = (HTTP_ROUTE, DEPLOYMENT, SERVICE, DISRUPTION_BUDGET)
"""A ModelDeployment's and a ModelRevision's status need no mark: each is written as a whole, with
its version, by whoever has read it, so what comes late only comes between two decisions."""


@dataclass(slots=True)
class Takeover:
    """Marks the objects of each ModelDeployment once.

    Attributes:
        mark: Gives an object a new version, and returns it.
        needed: Whether there was a leader who did not give the lease back.
    """

    store: Store
    mark: Callable[[Manifest], Awaitable[Manifest]]
    needed: bool
    _done: set[Key] = field(default_factory=set)

    async def __call__(self, key: Key) -> None:
        """Mark the objects of a ModelDeployment, if that is not done yet.

        Raises:
            KubeError: It did not succeed: nothing may be decided yet.
        """
        if not self.needed or key in self._done:
            return
        children = [m for kind in _WRITTEN for m in self.store.children(key, kind.kind)]
        await asyncio.gather(*map(self._mark, children))
        self._done.add(key)

    async def _mark(self, manifest: Manifest) -> None:
        try:
            self.store.put(await self.mark(manifest))
        except NotFoundError:  # nothing can be written to it any more
            return
