"""Who may run now, who waits, and who is turned away."""

import asyncio
import time

TOO_LATE = "the model did not answer in time"


class OverloadedError(Exception):
    """As many requests wait already as may wait."""


class DeadlineExceededError(Exception):
    """The request's time was over before it had its answer."""


class Admission:
    """At most `slots` runs at once and `max_waiting` requests behind them, first come first served.

    Belongs to one event loop. Each successful `enter` is matched by one `leave`.
    """

    def __init__(self, *, slots: int, max_waiting: int) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._max_waiting = max_waiting
        self._waiting = 0

    @property
    def must_wait(self) -> bool:
        """Whether a request that comes now has to wait for a slot."""
        return self._slots.locked()

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self._waiting

    async def enter(self, deadline: float) -> float:
        """Take a slot and return the seconds that it took to get one.

        Args:
            deadline: When to give up, in the time of the event loop.

        Raises:
            OverloadedError: Too many wait already.
            DeadlineExceededError: No slot was free in time.
        """
        if not self._slots.locked():
            await self._slots.acquire()
            return 0.0
        if self._waiting >= self._max_waiting:
            raise OverloadedError("too many requests wait for this model already")
        started = time.perf_counter()
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError as error:
            raise DeadlineExceededError(TOO_LATE) from error
        finally:
            self._waiting -= 1
        return time.perf_counter() - started

    def leave(self) -> None:
        """Give a slot back."""
        self._slots.release()
