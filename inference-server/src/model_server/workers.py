"""Threads for the model, and who may use them when."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class OverloadedError(Exception):
    """As many requests wait already as may wait."""


class DeadlineExceededError(Exception):
    """The request's time was over before it had its answer."""


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """A result, the seconds that its work waited for a thread, and those that it took."""

    result: T
    waited_s: float
    took_s: float


class Workers:
    """`count` threads that take jobs in the order of their coming; at most `max_waiting` wait.

    A thread is busy until its work really ends, also when nobody waits for the result any more.
    All methods belong to one event loop. Handing a job over through the queue itself, rather than
    through an executor and a semaphore, is what keeps small models from costing more in hand-overs
    than in arithmetic: see `benchmarks/server_rest.py`.
    """

    def __init__(self, *, count: int, max_waiting: int) -> None:
        self._count = count
        self._max_waiting = max_waiting
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._finished: deque[_Job] = deque()
        self._notified = False
        # jobs that wait or run, the ones that were given up while they waited not included
        self._pending = 0
        self._threads: list[threading.Thread] = []

    @property
    def must_wait(self) -> bool:
        """Whether a job that comes now has to wait for another one's end."""
        return self._pending >= self._count

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return max(0, self._pending - self._count)

    async def run(
        self, work: Callable[[], T], *, stop: Callable[[], None], deadline: float
    ) -> Timed[T]:
        """Run `work` in a thread.

        Args:
            work: What to do. What it raises is raised here.
            stop: Asks `work` to end early; called from another thread.
            deadline: When to give up, in the time of the event loop; finite.

        Raises:
            OverloadedError: Too many wait already.
            DeadlineExceededError: It was not done in time; where it runs, it was asked to stop.
            asyncio.CancelledError: Likewise.
        """
        if self.waiting >= self._max_waiting and self.must_wait:
            raise OverloadedError("too many requests wait for this model already")
        loop = asyncio.get_running_loop()
        job = _Job(work, stop, loop.create_future())
        timer = loop.call_at(deadline, self._expire, job)
        self._start_threads(loop)
        self._pending += 1
        self._queue.put(job)
        try:
            timed: Timed[T] = await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        finally:
            timer.cancel()
        return timed

    def close(self) -> int:
        """Start no more jobs, cancel those that wait, and return how many still run."""
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job is not None and job.claim():
                self._pending -= 1
                job.future.cancel()
        for _ in self._threads:
            self._queue.put(None)
        self._threads = []
        return self._pending

    def _start_threads(self, loop: asyncio.AbstractEventLoop) -> None:
        while len(self._threads) < self._count:
            name = f"inference-{len(self._threads)}"
            # daemon: work that never ends must not keep the process alive
            thread = threading.Thread(target=self._work, args=(loop,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do jobs until there is a None; runs in each of the threads."""
        while (job := self._queue.get()) is not None:
            if job.claim():
                job.execute()
                self._finished.append(job)
                # NB: appended before the flag is read, cleared before the jobs are taken: none is
                # missed, and a burst of jobs wakes the event loop once
                if not self._notified:
                    self._notified = True
                    try:
                        loop.call_soon_threadsafe(self._settle)
                    except RuntimeError:  # the loop is closed: nobody waits any more
                        return
            # its tensors must not stay until the next job comes
            del job

    def _settle(self) -> None:
        self._notified = False
        while self._finished:
            job = self._finished.popleft()
            self._pending -= 1
            if job.future.done():
                continue
            if job.failure is None:
                job.future.set_result(Timed(job.result, job.waited_s, job.took_s))
            else:
                job.future.set_exception(job.failure)

    def _expire(self, job: "_Job") -> None:
        if not job.future.done():
            self._give_up(job)
            job.future.set_exception(DeadlineExceededError("the model did not answer in time"))

    def _give_up(self, job: "_Job") -> None:
        if job.claim():
            self._pending -= 1
            job.forget()
        else:
            job.stop()


class _Job:
    """Work for one thread, and a future for its result."""

    __slots__ = (
        "_claimed",
        "_created",
        "_work",
        "failure",
        "future",
        "result",
        "stop",
        "took_s",
        "waited_s",
    )

    def __init__(
        self, work: Callable[[], Any], stop: Callable[[], None], future: "asyncio.Future[Any]"
    ) -> None:
        self.stop = stop
        self.future = future
        self.result: Any = None
        self.failure: BaseException | None = None
        self.waited_s = 0.0
        self.took_s = 0.0
        self._work: Callable[[], Any] | None = work
        self._claimed = threading.Lock()
        self._created = time.perf_counter()

    def claim(self) -> bool:
        """Tell the first who asks, a thread or the loop, that the job is its own."""
        return self._claimed.acquire(blocking=False)

    def execute(self) -> None:
        """Do the work and keep what came of it."""
        assert self._work is not None, "forgotten jobs are claimed"  # noqa: S101 - for mypy
        started = time.perf_counter()
        self.waited_s = started - self._created
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self.failure = error
        self.took_s = time.perf_counter() - started
        self.forget()

    def forget(self) -> None:
        """Let go of the work's inputs; the job may stay in the queue for a while."""
        self._work = None
