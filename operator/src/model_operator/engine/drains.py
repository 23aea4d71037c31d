"""Whether a revision that has no weight any more still gets requests.

A gateway takes a new weight when it gets to it, and connections outlive routes: only the
revision's own counters tell that nobody reaches it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from model_operator.engine.store import Key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Activity:
    """What reaches a revision.

    Attributes:
        finished: Finished requests by pod; no pods when there is none that could get any.
        in_flight: Requests that have no answer yet.
    """

    finished: Mapping[str, float]
    in_flight: float


Ask: TypeAlias = Callable[[Key, str], Awaitable[Activity | None]]
"""Asks the pods of a revision; None when one that is ready does not answer."""


@dataclass(slots=True)
class _Drain:
    task: asyncio.Task[None] | None = None
    drained: bool = False


@dataclass(slots=True)
class Drains:
    """Watches revisions without weight until they rest.

    Attributes:
        ask: Asks a revision's pods.
        changed: Told when a revision came to rest.
        settle_s: How long the counters must stand still, seconds.
        give_up_s: A revision whose pods cannot be asked counts as drained after this, seconds:
            otherwise one pod that does not answer would keep it for ever.
    """

    ask: Ask
    changed: Callable[[Key], None]
    settle_s: float = 2.0
    give_up_s: float = 60.0
    _drains: dict[Key, dict[str, _Drain]] = field(default_factory=dict)

    def drained(self, key: Key) -> frozenset[str]:
        """Revisions of a ModelDeployment that nobody reaches any more."""
        known = self._drains.get(key, {})
        return frozenset(revision for revision, drain in known.items() if drain.drained)

    def follow(self, key: Key, leaving: frozenset[str]) -> None:
        """Watch exactly these revisions of a ModelDeployment from now on."""
        known = self._drains.setdefault(key, {})
        for revision in [revision for revision in known if revision not in leaving]:
            _cancel(known.pop(revision))
        for revision in leaving - known.keys():
            drain = known[revision] = _Drain()
            drain.task = asyncio.get_running_loop().create_task(self._watch(key, revision, drain))
        if not known:
            del self._drains[key]

    def close(self) -> None:
        """Watch nothing any more."""
        for key in list(self._drains):
            self.follow(key, frozenset())

    async def _watch(self, key: Key, revision: str, drain: _Drain) -> None:
        loop = asyncio.get_running_loop()
        begun = still_since = loop.time()
        last: Activity | None = None
        while True:
            activity = await self._ask(key, revision)
            now = loop.time()
            if activity is None or activity.in_flight > 0 or activity != last:
                last, still_since = activity, now
            if activity is not None and (
                not activity.finished or now - still_since >= self.settle_s
            ):
                break
            if activity is None and now - begun >= self.give_up_s:
                logger.warning("pods of %s in %s cannot be asked for requests", revision, key)
                break
            await asyncio.sleep(self.settle_s / 4)
        drain.drained = True
        self.changed(key)

    async def _ask(self, key: Key, revision: str) -> Activity | None:
        try:
            return await self.ask(key, revision)
        except Exception:
            # NB: a watch that ended here would keep the revision for ever, and nobody would know
            logger.exception("asking the pods of %s in %s failed", revision, key)
            return None


def _cancel(drain: _Drain) -> None:
    if drain.task is not None:
        drain.task.cancel()
