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

Counters: TypeAlias = Mapping[str, float]
"""Finished requests by pod."""
Count: TypeAlias = Callable[[Key, str], Awaitable[Counters | None]]
"""Reads the counters of a revision's pods; None when a pod that is ready does not answer, an empty
mapping when there is no pod to ask."""


@dataclass(slots=True)
class _Drain:
    task: asyncio.Task[None] | None = None
    drained: bool = False


@dataclass(slots=True)
class Drains:
    """Watches revisions without weight until they rest.

    Attributes:
        count: Reads a revision's counters.
        changed: Told when a revision came to rest.
        settle_s: How long the counters must stand still, seconds.
        give_up_s: A revision whose pods cannot be asked counts as drained after this, seconds:
            otherwise one pod that does not answer would keep it for ever.
    """

    count: Count
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
        last: Counters | None = None
        while True:
            counters = await self.count(key, revision)
            now = loop.time()
            if counters is None or counters != last:
                last, still_since = counters, now
            if counters == {} or (counters is not None and now - still_since >= self.settle_s):
                break
            if counters is None and now - begun >= self.give_up_s:
                logger.warning("pods of %s in %s cannot be asked for requests", revision, key)
                break
            await asyncio.sleep(self.settle_s / 4)
        drain.drained = True
        self.changed(key)


def _cancel(drain: _Drain) -> None:
    if drain.task is not None:
        drain.task.cancel()
