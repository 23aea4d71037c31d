"""Lets a leader write, and nobody who only thinks that it leads.

Two things make it safe. Before each write the lease is looked at on the local clock, so a process
that was stopped or cut off in the middle of a decision does not carry it out. And each write names
the version of its object that was read before that look, so one that was already on its way, and
arrives after somebody else has begun to lead, finds another version (see `engine.takeover`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from model_operator.adapters.kube import (
    RESOURCES,
    ConflictError,
    Kube,
    KubeClient,
    Listing,
    Manifest,
    NotFoundError,
    Resource,
)
from model_operator.api.labels import FIELD_MANAGER, GROUP

TERM: Final = f"{GROUP}/term"
"""On what a leader may write: the newest term that began with a takeover."""

ABSENT: Final = "1"
"""A version that no object has: an apply with it creates the object, and conflicts with a live
one."""

_MERGE: Final = "application/merge-patch+json"
_TERM_MANAGER: Final = f"{FIELD_MANAGER}-term"
"""Not the manager of what is applied: an apply would take the annotation away again."""


class VersionClient(KubeClient):
    """Calls that nobody but the fence needs."""

    async def mark(self, manifest: Manifest, term: str) -> Manifest:
        """Write a term's name on an object, and with it give it a new version.

        Returns:
            The object as it is then.

        Raises:
            KubeError: It could not be written; `NotFoundError` when it is gone.
        """
        metadata = manifest["metadata"]
        path = RESOURCES[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        patch = {"metadata": {"annotations": {TERM: term}}}
        return await self._call("PATCH", path, {"fieldManager": _TERM_MANAGER}, patch, _MERGE)

    async def delete_version(self, resource: Resource, live: Manifest) -> None:
        """Delete an object as it was read, its dependents after it.

        One that is gone is fine; one that has changed stays: whatever changed it has its owner
        worked on again.
        """
        metadata = live["metadata"]
        conditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        options = {"propagationPolicy": "Background", "preconditions": conditions}
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        with suppress(NotFoundError, ConflictError):
            await self._call("DELETE", path, body=options)


@dataclass(frozen=True, slots=True)
class FencedKube:
    """`Kube` for the leader only: a write by anybody else raises `LeaseLostError`.

    Attributes:
        kube: The API.
        versions: The same.
        check: Raises unless this process leads at this moment.
    """

    kube: Kube
    versions: VersionClient
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
        try:
            live = await self.kube.get(resource, namespace, name)
        except NotFoundError:
            return
        if live["metadata"]["uid"] == uid:
            self.check()
            await self.versions.delete_version(resource, live)

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
