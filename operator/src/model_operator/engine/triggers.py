"""Kopf as the watch layer: every event goes into the store, and its ModelDeployment into the queue.

NB: Kopf has a thread and an event loop of its own. When it ends, it cancels every task of its loop
that was begun after it, whosever it is, and it takes the signals of its thread for itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import kopf
from kubernetes.aio.client import Configuration

from model_operator.adapters.kube import METRIC_SOURCE, Resource
from model_operator.api.labels import FIELD_MANAGER
from model_operator.engine.relist import CHILD_KINDS, CHILD_SELECTOR, OWN_KINDS
from model_operator.engine.sources import users_of
from model_operator.engine.store import Key, Manifest, Store, owner_of

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 2.0
_LOGIN_EXPIRES: Final = timedelta(minutes=10)
_TLS_END_S: Final = 0.1
_INSIST_S: Final = 1.0

Seen: TypeAlias = Callable[[Manifest, bool], None]
"""Takes an object and whether it was deleted."""


@dataclass(frozen=True, slots=True)
class Watches:
    """Watches everything that the engine looks at.

    Attributes:
        add: Has a ModelDeployment worked on.
        configuration: Where the API server is and how to log in.
        namespaces: Namespaces to look after; none for all.
    """

    store: Store
    add: Callable[[Key], None]
    configuration: Configuration
    namespaces: tuple[str, ...]
    _end: threading.Event = field(default_factory=threading.Event)

    async def run(self) -> None:
        """Watch until `stop`.

        What Kopf takes for the end, such as a watch that is refused, is an outage like any other:
        the lists go on, and the watches begin anew. A restart would lose the analyses' memory.
        """
        loop = asyncio.get_running_loop()

        def seen(manifest: Manifest, deleted: bool) -> None:  # noqa: FBT001 - a callback
            loop.call_soon_threadsafe(self._take, manifest, deleted)

        registry = _handlers(seen, self.configuration)
        while not self._end.is_set():
            try:
                await asyncio.to_thread(asyncio.run, self._watch(registry))
            except Exception:
                logger.exception("the watches ended; they begin anew in %.0f s", _AGAIN_S)
                await asyncio.to_thread(self._end.wait, _AGAIN_S)

    def stop(self) -> None:
        """Have `run` return."""
        self._end.set()

    async def _watch(self, registry: kopf.OperatorRegistry) -> None:
        asyncio.get_running_loop().set_exception_handler(_tell)
        insisting = asyncio.create_task(_insist())
        try:
            await kopf.operator(
                registry=registry,
                settings=_settings(),
                standalone=True,
                clusterwide=not self.namespaces,
                namespaces=self.namespaces,
                stop_flag=self._end,
                # Kopf would make one of the user's name, and a container's user may have none;
                # the type is a NewType of str that Kopf does not export
                identity=FIELD_MANAGER,  # type: ignore[arg-type] # see above
            )
        finally:
            insisting.cancel()
        # Kopf does not wait for its TLS connections to end, which takes a few turns of the loop
        await asyncio.sleep(_TLS_END_S)

    def _take(self, manifest: Manifest, deleted: bool) -> None:  # noqa: FBT001 - a callback
        if deleted:
            self.store.remove(manifest)
        else:
            self.store.put(manifest)
        if manifest["kind"] == METRIC_SOURCE.kind:
            for user in users_of(self.store, manifest["metadata"]["name"]):
                self.add(user)
        elif (owner := owner_of(manifest)) is not None:
            self.add(owner)


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """One line for what nobody awaits, such as a refused watch: Kopf has logged the rest."""
    logger.warning("watches: %s: %r", context["message"], context.get("exception"))


async def _insist() -> None:
    """Cancel again what was cancelled a while ago and goes on all the same.

    NB: a watch that is cancelled between two of its streams swallows that (`streaming_block` of
    Kopf 1.45) and begins the next one. Kopf cancels it once and waits for ever: the operator would
    not end, or an outage that ended the watches would have no new ones.
    """
    before: set[asyncio.Task[Any]] = set()
    while True:
        await asyncio.sleep(_INSIST_S)
        stubborn = {task for task in asyncio.all_tasks() if task.cancelling()}
        for task in stubborn & before:
            task.cancel()
        before = stubborn


def _handlers(seen: Seen, configuration: Configuration) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    for resource in (*OWN_KINDS, *CHILD_KINDS):
        _on_event(registry, resource, seen)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        token = await configuration.get_api_key_with_prefix("BearerToken")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            token=_bare(token),
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            # a projected token rotates: it is read again
            expiration=datetime.now(UTC) + _LOGIN_EXPIRES,
        )

    return registry


def _on_event(registry: kopf.OperatorRegistry, resource: Resource, seen: Seen) -> None:
    version = resource.api_version.rpartition("/")[2]

    @kopf.on.event(resource.group, version, resource.plural, registry=registry, id=resource.plural)
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        # items of a list carry neither
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        seen({**kind, **event["object"]}, event["type"] == "DELETED")


class _Backoffs:
    """Pauses between the attempts of one request, seconds: Kopf ends when there is none left."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0, 1.0, 2.0, 3.0, 5.0), itertools.repeat(5.0))


def _settings() -> kopf.OperatorSettings:
    """Watch, and nothing else."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.error_backoffs = _Backoffs()
    for resource in CHILD_KINDS:
        selector = (resource.group, resource.api_version.rpartition("/")[2], resource.plural)
        settings.watching.label_selectors[selector] = CHILD_SELECTOR
    return settings


def _bare(token: str | None) -> str | None:
    """A token without the scheme that the client's configuration puts before it."""
    return token.split(" ", maxsplit=1)[-1] if token else None
