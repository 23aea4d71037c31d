"""Reads what each revision takes and gives, from the first of its pods that is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from model_operator.adapters.inference import InferenceClient, UnreadableError
from model_operator.api.types import ModelDeploymentStatus, Signature
from model_operator.core.pod_template import HTTP_PORT
from model_operator.core.signatures import Signatures
from model_operator.engine.evidence import read_signature
from model_operator.engine.store import Key, Manifest, Store, revision_of
from model_operator.engine.workload import is_ready

logger = logging.getLogger(__name__)

_POD_TIMEOUT_S: Final = 1.0


@dataclass(slots=True)
class PodSignatures:
    """Asks the ready pods of a revision for its signature."""

    store: Store
    client: InferenceClient = field(default_factory=InferenceClient)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def ask(self, key: Key, revision: str) -> Signature:
        """The signature of a revision; its pods are asked one after the other.

        Raises:
            UnreadableError: None of them tells.
        """
        failure = UnreadableError("it has no ready pod")
        for pod in ready_pods(self.store, key, revision):
            try:
                return await self.client.signature(
                    pod["status"]["podIP"],
                    HTTP_PORT,
                    model=key.name,
                    revision=revision,
                    timeout_s=_POD_TIMEOUT_S,
                )
            except UnreadableError as error:
                failure = UnreadableError(f"pod {pod['metadata']['name']}: {error}")
        raise failure


Ask: TypeAlias = Callable[[Key, str], Awaitable[Signature]]
"""Asks the pods of a revision; raises `UnreadableError`."""


@dataclass(slots=True)
class _Reading:
    """What is being read of one revision.

    Attributes:
        rollout: Start time of the rollout that wants to know, empty for none: what could not be
            read for one rollout is tried again for the next.
        over: It is read, or given up.
    """

    rollout: str
    task: asyncio.Task[None] | None = None
    signature: Signature | None = None
    over: bool = False


@dataclass(slots=True)
class SignatureReader:
    """Knows the signatures of the revisions in use: recorded ones, and those just read.

    Attributes:
        ask: Asks a revision's pods.
        changed: Told when a signature is known, or given up.
        interval_s: Time between two attempts, seconds.
        give_up_s: After this a signature counts as unknown, so that pods which cannot be asked
            block no rollout, seconds.
    """

    store: Store
    ask: Ask
    changed: Callable[[Key], None]
    interval_s: float = 0.5
    give_up_s: float = 5.0
    _readings: dict[Key, dict[str, _Reading]] = field(default_factory=dict)

    def signatures(self, key: Key, status: ModelDeploymentStatus) -> Signatures:
        """What is known of the revisions in use, and what is still to come."""
        readings = self._readings.get(key, {})
        known: dict[str, Signature] = {}
        awaited: set[str] = set()
        for revision in _in_use(status):
            reading = readings.get(revision)
            signature = self._recorded(key, revision) or (reading and reading.signature)
            if signature:
                known[revision] = signature
            elif not _is_over(reading, _rollout(status)) and ready_pods(self.store, key, revision):
                awaited.add(revision)
        return Signatures(known, frozenset(awaited))

    def follow(self, key: Key, status: ModelDeploymentStatus) -> None:
        """Read what is not known of the revisions in use."""
        readings = self._readings.setdefault(key, {})
        in_use = _in_use(status)
        for revision in [revision for revision in readings if revision not in in_use]:
            _cancel(readings.pop(revision))
        rollout = _rollout(status)
        for revision in self.signatures(key, status).awaited:
            reading = readings.get(revision)
            if reading is not None and not reading.over:
                reading.rollout = rollout
                continue
            reading = readings[revision] = _Reading(rollout)
            reading.task = asyncio.get_running_loop().create_task(
                self._read(key, revision, reading)
            )
        if not readings:
            del self._readings[key]

    def forget(self, key: Key) -> None:
        """Drop what is known of a ModelDeployment."""
        for reading in self._readings.pop(key, {}).values():
            _cancel(reading)

    def close(self) -> None:
        """Read nothing any more."""
        for key in list(self._readings):
            self.forget(key)

    def _recorded(self, key: Key, revision: str) -> Signature | None:
        manifest = self.store.get("ModelRevision", key.namespace, revision)
        return read_signature(manifest) if manifest is not None else None

    async def _read(self, key: Key, revision: str, reading: _Reading) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while reading.signature is None:
            try:
                reading.signature = await self.ask(key, revision)
            except UnreadableError as error:
                if loop.time() - begun >= self.give_up_s:
                    logger.warning("%s: no signature of %s: %s", key, revision, error)
                    break
                await asyncio.sleep(self.interval_s)
            except Exception:
                # a defect here must not have a rollout wait for ever
                logger.exception("reading the signature of %s in %s failed", revision, key)
                break
        reading.over = True
        self.changed(key)


def ready_pods(store: Store, key: Key, revision: str) -> list[Manifest]:
    """Pods of a revision that can be asked, by name."""
    return [
        pod
        for pod in store.children(key, "Pod")
        if revision_of(pod) == revision and is_ready(pod) and pod["status"].get("podIP")
    ]


def _in_use(status: ModelDeploymentStatus) -> frozenset[str]:
    roles = (status.stable, status.candidate, status.former)
    return frozenset(role.revision for role in roles if role is not None)


def _rollout(status: ModelDeploymentStatus) -> str:
    return (status.candidate.start_time or "") if status.candidate is not None else ""


def _is_over(reading: _Reading | None, rollout: str) -> bool:
    return reading is not None and reading.over and reading.rollout == rollout


def _cancel(reading: _Reading) -> None:
    if reading.task is not None:
        reading.task.cancel()
