"""What a played part of the cluster sees of the API: one list, and then every change."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import Configuration

from model_operator.adapters.kube import Resource

Manifest = dict[str, Any]
_AGAIN_S: Final = 0.2
_LONGEST_LINE_BYTES: Final = 4 * 1024 * 1024
_UNREACHABLE: Final = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(slots=True)
class Informer:
    """Live objects of a kind, of one namespace or of all.

    Attributes:
        namespace: Whose; empty for all.
        seen: Told of every version of every object, and whether it is gone.
        objects: By namespace and name.
    """

    configuration: Configuration
    resource: Resource
    namespace: str = ""
    seen: list[Callable[[Manifest, bool], None]] = field(default_factory=list)
    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    async def run(self) -> None:
        """Follow the API until cancelled, also over outages of it."""
        context = ssl.create_default_context(cafile=self.configuration.ssl_ca_cert)
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        async with aiohttp.ClientSession(
            self.configuration.host,
            connector=aiohttp.TCPConnector(ssl=context),
            headers={"Authorization": token or ""},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=_LONGEST_LINE_BYTES,
        ) as session:
            while True:
                try:
                    await self._watch(session, await self._list(session))
                except _UNREACHABLE:
                    await asyncio.sleep(_AGAIN_S)

    def of(self, namespace: str) -> list[Manifest]:
        """Live objects of a namespace."""
        return [found for (where, _), found in self.objects.items() if where == namespace]

    def put(self, manifest: Manifest) -> None:
        """Take over the answer to a write, ahead of the watch."""
        metadata = manifest["metadata"]
        key = (metadata["namespace"], metadata["name"])
        known = self.objects.get(key)
        if known is None or _version(known) < _version(manifest):
            self.objects[key] = manifest
            for seen in self.seen:
                seen(manifest, False)  # noqa: FBT003 - what the callbacks are made for

    async def _list(self, session: aiohttp.ClientSession) -> str:
        async with session.get(self.resource.path(self.namespace)) as answer:
            answer.raise_for_status()
            listing = await answer.json()
        present = {(i["metadata"]["namespace"], i["metadata"]["name"]) for i in listing["items"]}
        for key in [key for key in self.objects if key not in present]:
            self._gone(self.objects[key])
        for item in listing["items"]:
            self.put({"kind": self.resource.kind, **item, "apiVersion": self.resource.api_version})
        version: str = listing["metadata"]["resourceVersion"]
        return version

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version}
        async with session.get(self.resource.path(self.namespace), params=query) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] == "DELETED":
                    self._gone(event["object"])
                else:
                    self.put(event["object"])

    def _gone(self, manifest: Manifest) -> None:
        self.objects.pop((manifest["metadata"]["namespace"], manifest["metadata"]["name"]), None)
        for seen in self.seen:
            seen(manifest, True)  # noqa: FBT003 - what the callbacks are made for


def _version(manifest: Manifest) -> int:
    return int(manifest["metadata"]["resourceVersion"])
