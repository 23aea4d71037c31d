"""The inference protocol's operations on one model, free of any transport."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from model_server.admission import TOO_LATE, Admission, DeadlineExceededError
from model_server.metrics import Metrics
from model_server.model import ExecutionError, Model, Run
from model_server.signature import Signature, Tensor, TensorSpec

_log = logging.getLogger(__name__)


class NotReadyError(Exception):
    """The model is still being loaded."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """Inputs of one inference.

    Attributes:
        inputs: In any order.
        outputs: Names of the outputs that are wanted; all when empty.
        id: The caller's name for the request, returned with the response.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    id: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """Outputs in the order in which they were asked for, or else in the graph's."""

    outputs: tuple[Tensor, ...]
    id: str | None = None


class DataPlane:
    """One model as a service: admission, deadlines and metrics around its runs.

    All methods belong to one event loop; the model itself runs in threads.
    """

    def __init__(self, *, concurrency: int, max_waiting: int, metrics: Metrics) -> None:
        self._admission = Admission(slots=concurrency, max_waiting=max_waiting)
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="inference")
        self._metrics = metrics
        self._model: Model | None = None
        self._draining = False
        self._running = 0
        metrics.observe(ready=lambda: self.ready, queue_depth=lambda: self._admission.waiting)

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self._model is not None and not self._draining

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop. Requests are still served."""
        return self._draining

    @property
    def must_wait(self) -> bool:
        """Whether a request that comes now has to wait for another one's end."""
        return self._admission.must_wait

    def attach(self, model: Model) -> None:
        """Become ready with `model`."""
        self._model = model

    def begin_drain(self) -> None:
        """Become not ready, so that nobody new is sent here."""
        self._draining = True

    def signature(self) -> Signature:
        """Return what the model takes and gives.

        Raises:
            NotReadyError: It is not known yet.
        """
        return self._loaded().signature

    async def infer(self, request: InferenceRequest, deadline: float) -> InferenceResponse:
        """Run the model.

        Cancelling gives up the place in the queue, or stops the run after its current operator.

        Args:
            request: What to run it on.
            deadline: When to give up, in the time of the event loop.

        Raises:
            NotReadyError: There is no model yet.
            InvalidRequestError: The request does not fit the model.
            OverloadedError: Too many requests wait already.
            DeadlineExceededError: The answer was not there in time.
            ExecutionError: The model failed on these inputs.
        """
        model = self._loaded()
        feed = model.signature.bind(request.inputs)
        outputs = model.signature.select(request.outputs)
        waited_s = await self._admission.enter(deadline)
        self._metrics.queue_s.observe(waited_s)
        arrays = await self._run(model, outputs, feed, deadline)
        return InferenceResponse(
            outputs=tuple(
                Tensor(spec.name, spec.datatype, array)
                for spec, array in zip(outputs, arrays, strict=True)
            ),
            id=request.id,
        )

    def close(self) -> int:
        """Start no more runs, and return how many are still under way in their threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        return self._running

    def _loaded(self) -> Model:
        if self._model is None:
            raise NotReadyError("the model is still being loaded")
        return self._model

    async def _run(
        self,
        model: Model,
        outputs: Sequence[TensorSpec],
        feed: Mapping[str, NDArray[Any]],
        deadline: float,
    ) -> list[NDArray[Any]]:
        """Run in a thread, with a slot that is held until that thread is free again."""
        loop = asyncio.get_running_loop()
        run = Run()
        future = loop.run_in_executor(self._executor, self._timed, model, outputs, feed, run)
        self._running += 1
        future.add_done_callback(self._finished)
        try:
            # NB: not `wait_for`, which would cancel the future and so free the slot of a thread
            # that is still busy
            await asyncio.wait((future,), timeout=deadline - loop.time())
        except asyncio.CancelledError:
            run.stop()
            raise
        if not future.done():
            run.stop()
            raise DeadlineExceededError(TOO_LATE)
        return future.result()

    def _timed(
        self,
        model: Model,
        outputs: Sequence[TensorSpec],
        feed: Mapping[str, NDArray[Any]],
        run: Run,
    ) -> list[NDArray[Any]]:
        started = time.perf_counter()
        try:
            return model.run(outputs, feed, run)
        finally:
            self._metrics.compute_s.observe(time.perf_counter() - started)

    def _finished(self, future: "asyncio.Future[list[NDArray[Any]]]") -> None:
        self._running -= 1
        self._admission.leave()
        if not future.cancelled() and isinstance(future.exception(), ExecutionError):
            _log.debug("run failed", extra={"reason": str(future.exception())})
