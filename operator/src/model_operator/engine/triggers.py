"""Kopf as the watch layer: every event goes into the store, and its ModelDeployment into the queue.

NB: no timers, daemons, indexes, states or finalizers of Kopf's: see docs/adr.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import kopf
from kubernetes.aio.client import Configuration

from model_operator.adapters.kube import (
    METRIC_SOURCE,
    MODEL_DEPLOYMENT,
    MODEL_REVISION,
    Resource,
)
from model_operator.engine.relist import CHILD_KINDS, CHILD_SELECTOR
from model_operator.engine.sources import users_of
from model_operator.engine.store import Key, Manifest, Store, owner_of

_LOGIN_EXPIRES: Final = timedelta(minutes=10)


def watch(
    store: Store, add: Callable[[Key], None], configuration: Configuration
) -> kopf.OperatorRegistry:
    """Handlers for everything that the engine looks at.

    Args:
        store: Takes every object.
        add: Has a ModelDeployment worked on.
        configuration: Where the API server is and how to log in.
    """
    registry = kopf.OperatorRegistry()
    for resource in (MODEL_DEPLOYMENT, MODEL_REVISION, *CHILD_KINDS):
        _on_event(registry, resource, lambda manifest: _add_owner(manifest, add), store)
    _on_event(registry, METRIC_SOURCE, lambda manifest: _add_users(manifest, store, add), store)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        token = await configuration.get_api_key_with_prefix("BearerToken")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=None,
            token=_bare(token),
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            # a projected token rotates: it is read again
            expiration=datetime.now(UTC) + _LOGIN_EXPIRES,
        )

    return registry


def watch_settings() -> kopf.OperatorSettings:
    """Kopf's settings: watch, and nothing else."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    for resource in CHILD_KINDS:
        selector = (resource.group, resource.api_version.rpartition("/")[2], resource.plural)
        settings.watching.label_selectors[selector] = CHILD_SELECTOR
    return settings


def _on_event(
    registry: kopf.OperatorRegistry,
    resource: Resource,
    changed: Callable[[Manifest], None],
    store: Store,
) -> None:
    @kopf.on.event(
        resource.group,
        resource.api_version.rpartition("/")[2],
        resource.plural,
        registry=registry,
        id=resource.plural,
    )
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        # items of a list carry neither
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        manifest = {**kind, **event["object"]}
        if event["type"] == "DELETED":
            store.remove(manifest)
        else:
            store.put(manifest)
        changed(manifest)


def _add_owner(manifest: Manifest, add: Callable[[Key], None]) -> None:
    key = owner_of(manifest)
    if key is not None:
        add(key)


def _add_users(manifest: Manifest, store: Store, add: Callable[[Key], None]) -> None:
    for key in users_of(store, manifest["metadata"]["name"]):
        add(key)


def _bare(token: str | None) -> str | None:
    """A token without the scheme that the client's configuration puts before it."""
    return token.split(" ", maxsplit=1)[-1] if token else None
