"""An API server in memory: versions, ownership by server-side apply, and failures on demand."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable
from typing import Any

from model_operator.adapters.kube import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    Listing,
    NotFoundError,
    Resource,
    UnreachableError,
)

Manifest = dict[str, Any]
CLIENT_TIMEOUT_S = 10.0


class FakeKube:
    """`Kube` in memory.

    Attributes:
        calls: What was asked for, such as `apply HTTPRoute`, in order.
        fail: Asked before each call, by its name and number; what it returns is raised.
        hangs: Asked the same before; such a call is not carried out, and never answered.
        changed: Told of every object that was written or deleted.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: Callable[[str, int], KubeError | None] = lambda _call, _number: None
        self.hangs: Callable[[str, int], bool] = lambda _call, _number: False
        self.changed: Callable[[Manifest, bool], None] = lambda _manifest, _deleted: None
        self._objects: dict[tuple[str, str], Manifest] = {}
        self._versions = itertools.count(1)

    async def get(self, resource: Resource, _namespace: str, name: str) -> Manifest:
        await self._begin(f"get {resource.kind}")
        return copy.deepcopy(self._find(resource.kind, name))

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind, without a call."""
        return sorted(name for found, name in self._objects if found == kind)

    async def list(self, resource: Resource, *, namespace: str = "", selector: str = "") -> Listing:
        del namespace
        await self._begin(f"list {resource.kind}")
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        items = [
            copy.deepcopy(manifest)
            for (kind, _), manifest in self._objects.items()
            if kind == resource.kind and wanted.items() <= manifest["metadata"]["labels"].items()
        ]
        return Listing(tuple(items), next(self._versions))

    async def apply(self, manifest: Manifest, *, resource_version: str | None = None) -> Manifest:
        await self._begin(f"apply {manifest['kind']}")
        key = (manifest["kind"], manifest["metadata"]["name"])
        live = self._objects.get(key, {})
        if resource_version not in (None, live.get("metadata", {}).get("resourceVersion")):
            raise ConflictError("another version is there")
        content = {k: v for k, v in manifest.items() if k not in {"apiVersion", "kind"}}
        metadata = {k: v for k, v in content["metadata"].items() if k not in {"name", "namespace"}}
        owned = _fields({**content, "metadata": metadata})
        return self.put(
            {
                **manifest,
                "metadata": {
                    **manifest["metadata"],
                    "managedFields": [
                        {"manager": "model-operator", "operation": "Apply", "fieldsV1": owned}
                    ],
                },
                **({"status": live["status"]} if "status" in live else {}),
            }
        )

    async def replace_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        await self._begin(f"status {manifest['kind']}")
        live = self._find(manifest["kind"], manifest["metadata"]["name"])
        if live["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ConflictError("another version is there")
        return self.put({**live, "status": status})

    async def delete(self, resource: Resource, _namespace: str, name: str, *, uid: str) -> None:
        await self._begin(f"delete {resource.kind}")
        live = self._objects.get((resource.kind, name))
        if live is not None and live["metadata"]["uid"] == uid:
            self.remove(resource.kind, name)

    async def create(self, manifest: Manifest) -> Manifest:
        await self._begin(f"create {manifest['kind']}")
        if (manifest["kind"], manifest["metadata"]["name"]) in self._objects:
            raise AlreadyExistsError("it exists already")
        return self.put(manifest)

    def put(self, manifest: Manifest) -> Manifest:
        """Write an object as anybody might."""
        key = (manifest["kind"], manifest["metadata"]["name"])
        live = self._objects.get(key)
        version = next(self._versions)
        new = {"uid": f"uid-{version}", "generation": 0}
        before: Manifest = live["metadata"] if live else new
        spec_changed = live is None or live.get("spec") != manifest.get("spec")
        metadata = {
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {},
            **manifest["metadata"],
            "uid": before["uid"],
            "generation": before["generation"] + spec_changed,
            "resourceVersion": str(version),
        }
        written = copy.deepcopy({**manifest, "metadata": metadata})
        self._objects[key] = written
        self.changed(copy.deepcopy(written), False)  # noqa: FBT003 - as the watches do
        return copy.deepcopy(written)

    def remove(self, kind: str, name: str) -> None:
        """Delete an object as anybody might."""
        gone = self._objects.pop((kind, name))
        gone["metadata"]["resourceVersion"] = str(next(self._versions))
        self.changed(gone, True)  # noqa: FBT003 - as the watches do

    def peek(self, kind: str, name: str) -> Manifest:
        """An object, without a call."""
        return copy.deepcopy(self._find(kind, name))

    def _find(self, kind: str, name: str) -> Manifest:
        if (kind, name) not in self._objects:
            raise NotFoundError(f"no {kind} {name}")
        return self._objects[kind, name]

    async def _begin(self, call: str) -> None:
        self.calls.append(call)
        number = len(self.calls)
        if self.hangs(call, number):
            await asyncio.sleep(CLIENT_TIMEOUT_S)
            raise UnreachableError(f"no answer to call {number}, {call}")
        error = self.fail(call, number)
        if error is not None:
            raise error


def _fields(value: Any) -> Manifest:
    """Ownership as server-side apply records it; every list counts as atomic here."""
    if not isinstance(value, dict):
        return {}
    return {f"f:{key}": _fields(item) for key, item in value.items() if item not in ({}, [])}
