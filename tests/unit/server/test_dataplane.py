import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model_server.dataplane import DataPlane, InferenceRequest, NotReadyError
from model_server.datatypes import Datatype
from model_server.metrics import Metrics
from model_server.model import ExecutionError
from model_server.signature import InvalidRequestError, Tensor
from model_server.workers import DeadlineExceededError, OverloadedError
from tests.unit.server import onnx_models
from tests.unit.server.serving import GatedModel, loaded


def request(*indices: int) -> InferenceRequest:
    return InferenceRequest(inputs=(Tensor("i", Datatype.INT64, np.array(indices)),), id="7")


@pytest.fixture
def model(tmp_path: Path) -> Iterator[GatedModel]:
    gated = GatedModel(loaded(onnx_models.lookup(), tmp_path))
    yield gated
    gated.gate.set()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("m", "m-1")


@pytest.fixture
def dataplane(model: GatedModel, metrics: Metrics) -> Iterator[DataPlane]:
    plane = DataPlane(concurrency=2, max_waiting=3, metrics=metrics)
    plane.attach(model)
    yield plane
    model.gate.set()
    plane.close()


def soon() -> float:
    return asyncio.get_running_loop().time() + 60


def start(dataplane: DataPlane, timeout_s: float = 60.0) -> "asyncio.Task[object]":
    loop = asyncio.get_running_loop()
    return loop.create_task(dataplane.infer(request(0), loop.time() + timeout_s))


async def entered(model: GatedModel, count: int) -> None:
    """Wait until `count` more runs are inside the model."""
    for _ in range(count):
        assert await asyncio.to_thread(model.entered.acquire, timeout=30)


def sample(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"model": "m", "revision": "m-1"})


async def test_an_answer_carries_the_outputs_and_the_callers_id(
    dataplane: DataPlane, model: GatedModel
) -> None:
    model.gate.set()

    response = await dataplane.infer(request(1, 0), deadline=soon())

    assert response.outputs[0].array.tolist() == [20.0, 10.0]
    assert response.id == "7"


async def test_without_a_model_nothing_is_ready(metrics: Metrics) -> None:
    dataplane = DataPlane(concurrency=1, max_waiting=1, metrics=metrics)

    assert not dataplane.ready
    with pytest.raises(NotReadyError):
        await dataplane.infer(request(0), deadline=soon())
    with pytest.raises(NotReadyError):
        dataplane.signature()
    dataplane.close()


async def test_draining_ends_readiness_but_not_service(
    dataplane: DataPlane, model: GatedModel
) -> None:
    model.gate.set()
    dataplane.begin_drain()

    assert not dataplane.ready
    assert (await dataplane.infer(request(0), deadline=soon())).outputs


async def test_a_request_that_does_not_fit_takes_no_slot(
    dataplane: DataPlane, model: GatedModel
) -> None:
    with pytest.raises(InvalidRequestError):
        await dataplane.infer(InferenceRequest(inputs=()), deadline=soon())

    assert model.most_running == 0


async def test_runs_are_limited_and_the_rest_waits(
    dataplane: DataPlane, model: GatedModel, metrics: Metrics
) -> None:
    tasks = [start(dataplane) for _ in range(5)]
    await entered(model, 2)

    assert dataplane.must_wait
    assert sample(metrics, "model_server_queue_depth") == 3
    model.gate.set()
    await asyncio.gather(*tasks)
    assert model.most_running == 2
    assert sample(metrics, "model_server_queue_depth") == 0
    assert sample(metrics, "model_server_queue_duration_seconds_count") == 5
    assert sample(metrics, "model_server_compute_duration_seconds_count") == 5


async def test_a_full_queue_turns_requests_away_at_once(
    dataplane: DataPlane, model: GatedModel
) -> None:
    tasks = [start(dataplane) for _ in range(5)]
    await entered(model, 2)

    with pytest.raises(OverloadedError):
        await start(dataplane)

    model.gate.set()
    await asyncio.gather(*tasks)


async def test_a_deadline_ends_the_wait_for_a_slot(
    dataplane: DataPlane, model: GatedModel, metrics: Metrics
) -> None:
    tasks = [start(dataplane) for _ in range(2)]
    await entered(model, 2)

    with pytest.raises(DeadlineExceededError):
        await start(dataplane, timeout_s=0.01)

    assert sample(metrics, "model_server_queue_depth") == 0
    model.gate.set()
    await asyncio.gather(*tasks)


async def test_a_deadline_ends_the_wait_for_a_run_but_its_slot_stays_taken(
    dataplane: DataPlane, model: GatedModel
) -> None:
    hopeless = [start(dataplane, timeout_s=0.3) for _ in range(2)]
    await entered(model, 2)
    results = await asyncio.gather(*hopeless, return_exceptions=True)
    assert all(isinstance(result, DeadlineExceededError) for result in results)

    next_one = start(dataplane)
    await asyncio.sleep(0)

    assert dataplane.must_wait, "two threads are still inside the model"
    model.gate.set()
    await next_one
    assert model.most_running == 2


async def test_a_cancelled_waiter_gives_its_place_to_the_next(
    dataplane: DataPlane, model: GatedModel
) -> None:
    running = [start(dataplane) for _ in range(2)]
    await entered(model, 2)
    waiting = [start(dataplane) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    successor = start(dataplane)

    model.gate.set()
    await asyncio.gather(*running, *waiting[1:], successor)
    assert waiting[0].cancelled()


async def test_a_deadline_stops_the_run_inside_onnx_runtime(
    tmp_path: Path, metrics: Metrics
) -> None:
    dataplane = DataPlane(concurrency=1, max_waiting=1, metrics=metrics)
    dataplane.attach(loaded(onnx_models.loop(), tmp_path))
    loop = asyncio.get_running_loop()
    for_hours = InferenceRequest(inputs=(Tensor("n", Datatype.INT64, np.array([10**12])),))

    with pytest.raises(DeadlineExceededError):
        await dataplane.infer(for_hours, loop.time() + 0.05)

    once = InferenceRequest(inputs=(Tensor("n", Datatype.INT64, np.array([1])),))
    assert (await dataplane.infer(once, loop.time() + 10)).outputs, "the slot is free again"
    assert dataplane.close() == 0


async def test_a_run_never_blocks_the_event_loop(dataplane: DataPlane, model: GatedModel) -> None:
    task = start(dataplane)
    await entered(model, 1)

    # the loop goes on, from the same thread, while the model runs in another
    assert threading.current_thread() is threading.main_thread()
    await asyncio.sleep(0)
    assert not task.done()

    model.gate.set()
    await task


async def test_a_failing_run_frees_its_slot(dataplane: DataPlane, model: GatedModel) -> None:
    model.gate.set()
    for _ in range(3):
        with pytest.raises(ExecutionError, match="out of data bounds"):
            await dataplane.infer(request(99), deadline=soon())

    assert not dataplane.must_wait


async def test_closing_tells_how_many_runs_do_not_end(
    dataplane: DataPlane, model: GatedModel
) -> None:
    task = start(dataplane)
    await entered(model, 1)

    assert dataplane.close() == 1

    model.gate.set()
    await task
    assert dataplane.close() == 0
