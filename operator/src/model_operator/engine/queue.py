"""A keyed work queue: what is waiting is there once, and one key is worked on by one worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)


class _Stop:
    """Wakes a worker up to end."""


Failed: TypeAlias = Callable[[Hashable, Exception, float], None]
"""Told of every failed attempt: the key, the error, and in how many seconds the key comes again."""


class WorkQueue(Generic[K]):
    """Keys to work on.

    A key that is added while it waits is there once; one that is added while it is worked on is
    worked on once more afterwards. A key whose handler raises comes again after a delay that
    doubles with each failure in a row, with jitter, until an attempt succeeds.
    """

    def __init__(
        self,
        handler: Callable[[K], Awaitable[None]],
        *,
        failed: Failed,
        workers: int = 8,
        first_retry_s: float = 0.1,
        longest_retry_s: float = 10.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Create it; nothing runs before `run`.

        Args:
            handler: Works on one key.
            failed: Told when it raises.
            workers: How many keys are worked on at the same time.
            first_retry_s: Delay after a first failure, seconds.
            longest_retry_s: Longest delay, seconds.
            jitter: Random numbers from 0 to 1; a delay is between a half and all of its length.
        """
        self._handler = handler
        self._failed = failed
        self._workers = workers
        self._first_retry_s = first_retry_s
        self._longest_retry_s = longest_retry_s
        self._jitter = jitter
        self._waiting: asyncio.Queue[K | _Stop] = asyncio.Queue()
        self._queued: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._stopping = False

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return self._waiting.qsize()

    def add(self, key: K) -> None:
        """Have a key worked on as soon as a worker is free."""
        if self._stopping or key in self._queued:
            return
        if key in self._running:
            self._again.add(key)
            return
        self._queued.add(key)
        self._waiting.put_nowait(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Have a key worked on after a delay; of several delays of a key the earliest counts."""
        if self._stopping:
            return
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + delay_s:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(delay_s, self._due, key)

    async def run(self) -> None:
        """Work until `stop`, then finish what has been begun and return."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    def stop(self) -> None:
        """Begin nothing more; `run` returns when the present handlers are through."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for _ in range(self._workers):
            self._waiting.put_nowait(_Stop())

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._waiting.get()
            if self._stopping or isinstance(key, _Stop):
                return
            self._queued.discard(key)
            self._running.add(key)
            try:
                await self._attempt(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
            # NB: neither a full queue's `get` nor a handler with nothing to do suspends: without
            # this, keys that come again and again would starve watches and probes
            await asyncio.sleep(0)

    async def _attempt(self, key: K) -> None:
        try:
            await self._handler(key)
        except Exception as error:  # noqa: BLE001 - a broken key must not stop the others
            retry_s = self._retry_s(key)
            self._failed(key, error, retry_s)
            self.add_after(key, retry_s)
        else:
            self._failures.pop(key, None)

    def _retry_s(self, key: K) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(self._longest_retry_s, self._first_retry_s * 2.0 ** min(count - 1, 20))
        return longest * (0.5 + 0.5 * self._jitter())
