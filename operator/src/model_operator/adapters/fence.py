"""Lets a leader write, and nobody who only thinks that it leads.

Two things make it safe. Before each write the lease is looked at on the local clock, so a process
that was stopped or cut off in the middle of a decision does not carry it out. And each write names
the version of its object that was read before that look, so one that was already on its way, and
arrives after somebody else has begun to lead, finds another version (see `engine.takeover`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model_operator.adapters.kube import (
    RESOURCES,
    Kube,
    Listing,
    Manifest,
    NotFoundError,
    Resource,
)

ABSENT: Final = "1"
"""A version that no object has: an apply with it creates the object, and conflicts with a live
one."""


@dataclass(frozen=True, slots=True)
class FencedKube:
    """`Kube` for the leader only: a write by anybody else raises `LeaseLostError`.

    Attributes:
        kube: The API.
        check: Raises unless this process leads at this moment.
    """

    kube: Kube
    check: Callable[[], None]

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """Read one object."""
        return await self.kube.get(resource, namespace, name)

    async def list(self, resource: Resource, *, namespace: str = "", selector: str = "") -> Listing:
        """Read all objects of a kind."""
        return await self.kube.list(resource, namespace=namespace, selector=selector)

    async def apply(self, manifest: Manifest, *, resource_version: str | None = None) -> Manifest:
        """Server-side apply; `ConflictError` also when the object changed while it was sent."""
        if resource_version is None:
            manifest, resource_version = await self._pinned(manifest)
        self.check()
        return await self.kube.apply(manifest, resource_version=resource_version)

    async def replace_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Write `status` whole."""
        self.check()
        return await self.kube.replace_status(manifest, status)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object with that uid."""
        self.check()
        await self.kube.delete(resource, namespace, name, uid=uid)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""
        self.check()
        return await self.kube.create(manifest)

    async def _pinned(self, manifest: Manifest) -> tuple[Manifest, str]:
        """The manifest for exactly the object that is there now, or for none."""
        metadata = manifest["metadata"]
        resource = RESOURCES[manifest["kind"]]
        try:
            live = await self.kube.get(resource, metadata.get("namespace", ""), metadata["name"])
        except NotFoundError:
            return manifest, ABSENT
        # NB: the version alone would let the apply create an object that was deleted since
        pinned = {**manifest, "metadata": {**metadata, "uid": live["metadata"]["uid"]}}
        return pinned, live["metadata"]["resourceVersion"]
