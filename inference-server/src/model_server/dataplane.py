"""The inference protocol's operations on one model, free of any transport."""

from dataclasses import dataclass

from model_server.header import Header
from model_server.metrics import Metrics
from model_server.model import Model, Run
from model_server.signature import Signature, Tensor
from model_server.workers import Workers


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
    """One model as a service: threads, deadlines and metrics around its runs.

    All methods belong to one event loop; the model itself runs in threads.
    """

    def __init__(self, *, concurrency: int, max_waiting: int, metrics: Metrics) -> None:
        self._workers = Workers(count=concurrency, max_waiting=max_waiting)
        self._metrics = metrics
        self._model: Model | None = None
        self._draining = False
        metrics.observe(ready=lambda: self.ready, queue_depth=lambda: self._workers.waiting)

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
        return self._workers.must_wait

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

    def header(self) -> Header:
        """Return what the model says of itself.

        Raises:
            NotReadyError: It is not known yet.
        """
        return self._loaded().header

    async def infer(self, request: InferenceRequest, deadline: float) -> InferenceResponse:
        """Run the model.

        Cancelling gives up the place in the queue, or stops the run after its current operator.

        Args:
            request: What to run it on.
            deadline: When to give up, in the time of the event loop; finite.

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
        run = Run()
        timed = await self._workers.run(
            lambda: model.run(outputs, feed, run), stop=run.stop, deadline=deadline
        )
        self._metrics.queue_s.observe(timed.waited_s)
        self._metrics.compute_s.observe(timed.took_s)
        return InferenceResponse(
            outputs=tuple(
                Tensor(spec.name, spec.datatype, array)
                for spec, array in zip(outputs, timed.result, strict=True)
            ),
            id=request.id,
        )

    def close(self) -> int:
        """Start no more runs, and return how many are still under way in their threads."""
        return self._workers.close()

    def _loaded(self) -> Model:
        if self._model is None:
            raise NotReadyError("the model is still being loaded")
        return self._model
