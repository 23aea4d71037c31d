"""A keyed work queue: what is waiting is there once, and one key is worked on by one worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from model_operator.adapters.kube import KubeError, UnreachableError

K = TypeVar("K", bound=Hashable)


class _Stop:
    """Wakes a worker up to end."""


Failed: TypeAlias = Callable[[Hashable, Exception, float], None]
"""Told of every failed attempt: the key, the error, and in how many seconds the key comes again."""


@dataclass(slots=True)
class _Attempt:
    """A handler that runs.

    Attributes:
        begun: When, by the loop's clock.
        patience: Breaks it off.
    """

    begun: float
    patience: asyncio.Timeout


class WorkQueue(Generic[K]):
    """Keys to work on.

    A key that is added while it waits is there once; one that is added while it is worked on is
    worked on once more afterwards. A key whose handler raises comes again after a delay that
    doubles with each failure in a row, with jitter, until an attempt succeeds.

    A call that hangs must not keep news from being acted on, since they may be a reason to roll
    back. So a handler is broken off when there is news for its key and it takes longer than its
    patience; a handler can end at any call without harm. The patience doubles each time, so that a
    server which is merely slow is worked with all the same.
    """

    def __init__(
        self,
        handler: Callable[[K], Awaitable[None]],
        *,
        failed: Failed,
        workers: int = 8,
        first_retry_s: float = 0.1,
        longest_retry_s: float = 10.0,
        patience_s: float = 1.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Create it; nothing runs before `run`.

        Args:
            handler: Works on one key.
            failed: Told when it raises.
            workers: How many keys are worked on at the same time.
            first_retry_s: Delay after a first failure, seconds.
            longest_retry_s: Longest delay, seconds.
            patience_s: How long a handler may take when there is news for its key, seconds.
            jitter: Random numbers from 0 to 1; a delay is between a half and all of its length.
        """
        self._handler = handler
        self._failed = failed
        self._workers = workers
        self._first_retry_s = first_retry_s
        self._longest_retry_s = longest_retry_s
        self._patience_s = patience_s
        self._jitter = jitter
        self._waiting: asyncio.Queue[K | _Stop] = asyncio.Queue()
        self._queued: set[K] = set()
        self._running: dict[K, _Attempt | None] = {}
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._broken_off: dict[K, int] = {}
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
            self._hurry(key)
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
        for attempt in filter(None, self._running.values()):
            if not attempt.patience.expired():
                attempt.patience.reschedule(None)
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
            self._running[key] = None
            try:
                await self._attempt(key)
            finally:
                self._running.pop(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
            # NB: neither a full queue's `get` nor a handler with nothing to do suspends: without
            # this, keys that come again and again would starve watches and probes
            await asyncio.sleep(0)

    async def _attempt(self, key: K) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None) as patience:
                self._running[key] = _Attempt(begun, patience)
                await self._handler(key)
        except Exception as error:  # noqa: BLE001 - a broken key must not stop the others
            if patience.expired():
                self._broke_off(key, begun)
                return
            retry_s = self._retry_s(key, error)
            self._failed(key, error, retry_s)
            self.add_after(key, retry_s)
        else:
            self._failures.pop(key, None)
            self._relax(key, begun)

    def _hurry(self, key: K) -> None:
        """Give a handler the rest of its patience: there is news for its key."""
        attempt = self._running[key]
        if attempt is None or attempt.patience.when() is not None or self._stopping:
            return
        now = asyncio.get_running_loop().time()
        attempt.patience.reschedule(max(now, attempt.begun + self._patience_of(key)))

    def _patience_of(self, key: K) -> float:
        return self._patience_s * 2.0 ** min(self._broken_off.get(key, 0), 20)

    def _broke_off(self, key: K, begun: float) -> None:
        took_s = asyncio.get_running_loop().time() - begun
        self._broken_off[key] = self._broken_off.get(key, 0) + 1
        error = UnreachableError(f"no answer yet after {took_s:.1f} s, and there is news")
        self._failed(key, error, 0.0)

    def _relax(self, key: K, begun: float) -> None:
        """Forget that a server was slow, once it was quick."""
        if asyncio.get_running_loop().time() - begun < self._patience_s:
            self._broken_off.pop(key, None)

    def _retry_s(self, key: K, error: Exception) -> float:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(self._longest_retry_s, self._first_retry_s * 2.0 ** min(count - 1, 20))
        asked_s = (error.retry_after_s or 0.0) if isinstance(error, KubeError) else 0.0
        least = min(self._longest_retry_s, asked_s)
        return max(least, longest * (0.5 + 0.5 * self._jitter()))
