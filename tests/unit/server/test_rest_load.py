import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from onnx import ModelProto

from tests.unit.server import onnx_models
from tests.unit.server.rest_service import Service, body
from tests.unit.server.serving import INFER, NAME, REVISION, GatedModel


@pytest.fixture
def model(models: Callable[[ModelProto], Any]) -> Iterator[GatedModel]:
    model = GatedModel(models(onnx_models.lookup()))
    yield model
    model.gate.set()


@pytest.fixture
def service(model: GatedModel) -> Iterator[Service]:
    service = Service()
    service.dataplane.attach(model)
    yield service
    model.gate.set()
    service.dataplane.close()


async def occupy(
    service: Service, model: GatedModel, waiting: int = 0
) -> "list[asyncio.Task[httpx.Response]]":
    """Take the only slot and `waiting` places in the queue."""
    tasks = [
        asyncio.create_task(service.client.post(INFER, json=body(0))) for _ in range(1 + waiting)
    ]
    assert await asyncio.to_thread(model.entered.acquire, timeout=30)
    depth = service.metrics.registry.get_sample_value
    labels = {"model": NAME, "revision": REVISION}
    async with asyncio.timeout(30):
        while depth("model_server_queue_depth", labels) != waiting:  # noqa: ASYNC110 - a metric
            await asyncio.sleep(0)
    return tasks


async def test_liveness_does_not_wait_for_inference(service: Service, model: GatedModel) -> None:
    tasks = await occupy(service, model)

    assert (await service.client.get("/v2/health/live")).status_code == 200
    assert not tasks[0].done()


async def test_a_full_queue_sheds_load(service: Service, model: GatedModel) -> None:
    tasks = await occupy(service, model, waiting=1)

    answer = await service.client.post(INFER, json=body(0))

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert service.count(503) == 1
    model.gate.set()
    assert [(await task).status_code for task in tasks] == [200, 200]


async def test_a_callers_timeout_is_kept(service: Service, model: GatedModel) -> None:
    await occupy(service, model)

    answer = await service.client.post(INFER, json=body(0, parameters={"timeout": 10_000}))

    assert answer.status_code == 504
    assert service.count(504) == 1


async def test_requests_are_in_flight_until_they_are_answered(
    service: Service, model: GatedModel
) -> None:
    def in_flight() -> float | None:
        return service.metrics.registry.get_sample_value(
            "model_server_requests_in_flight", {"model": NAME, "revision": REVISION}
        )

    tasks = await occupy(service, model, waiting=1)

    assert in_flight() == 2
    model.gate.set()
    await asyncio.gather(*tasks)
    assert in_flight() == 0
