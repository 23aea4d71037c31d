import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from model_server.dataplane import DataPlane
from model_server.metrics import Metrics
from model_server.rest import RestApp, RestSettings
from tests.unit.server import onnx_models
from tests.unit.server.serving import INFER, NAME, REVISION, GatedModel, loaded


class Service:
    """The ASGI application around a real model, without a socket."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics(NAME, REVISION)
        self.dataplane = DataPlane(concurrency=1, max_waiting=1, metrics=self.metrics)
        self.app: Any = RestApp(
            self.dataplane,
            self.metrics,
            model=NAME,
            revision=REVISION,
            settings=RestSettings(**settings),
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://server")

    def count(self, code: int) -> float:
        labels = {"model": NAME, "revision": REVISION, "code": str(code)}
        value = self.metrics.registry.get_sample_value("model_server_requests_total", labels)
        assert value is not None, f"no series for {code}"
        return value


@pytest.fixture
def models(tmp_path: Path) -> Callable[[ModelProto], Any]:
    return lambda model: loaded(model, tmp_path)


@pytest.fixture
async def service(models: Callable[[ModelProto], Any]) -> AsyncIterator[Service]:
    """Serves a table of two entries."""
    service = Service()
    service.dataplane.attach(models(onnx_models.lookup()))
    yield service
    await service.client.aclose()
    service.dataplane.close()


def body(*indices: object, **fields: Any) -> dict[str, Any]:
    tensor = {"name": "i", "datatype": "INT64", "shape": [len(indices)], "data": list(indices)}
    return {"inputs": [tensor], **fields}


async def test_inference(service: Service) -> None:
    answer = await service.client.post(INFER, json=body(1, 0, id="abc"))

    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": NAME,
        "model_version": REVISION,
        "id": "abc",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [20.0, 10.0]}],
    }
    assert service.count(200) == 1


async def test_metadata_describes_the_graph(service: Service) -> None:
    answer = await service.client.get(f"/v2/models/{NAME}")

    assert answer.json() == {
        "name": NAME,
        "versions": [REVISION],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "i", "datatype": "INT64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        f"/v2/models/{NAME}",
        f"/v2/models/{NAME}/ready",
        f"/v2/models/{NAME}/versions/{REVISION}",
        f"/v2/models/{NAME}/versions/{REVISION}/ready",
    ],
)
async def test_every_read_answers_with_the_revision(service: Service, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await service.client.request(method, path)

        assert answer.status_code == 200
        assert answer.headers["x-model-revision"] == REVISION
        assert answer.headers["content-type"] == "application/json"


async def test_a_version_in_the_path_is_the_revision(service: Service) -> None:
    path = f"/v2/models/{NAME}/versions/{REVISION}/infer"

    assert (await service.client.post(path, json=body(0))).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/other", 404, "Request for unknown model: 'other' is not found"),
        ("POST", "/v2/models/other/infer", 404, "Request for unknown model: 'other' is not found"),
        (
            "POST",
            f"/v2/models/{NAME}/versions/9/infer",
            404,
            f"Request for unknown model: '{NAME}' version '9' is not found",
        ),
        ("GET", "/", 404, "there is nothing at /"),
        ("GET", f"/v2/models/{NAME}/", 404, "there is nothing at"),
        ("GET", "/metrics", 404, "there is nothing at"),
        ("POST", "/v2/health/live", 405, "allowed: GET, HEAD"),
        ("GET", INFER, 405, "allowed: POST"),
        ("DELETE", f"/v2/models/{NAME}", 405, "allowed: GET, HEAD"),
    ],
)
async def test_what_is_not_there_is_a_protocol_error(
    service: Service, method: str, path: str, status: int, message: str
) -> None:
    answer = await service.client.request(method, path)

    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert answer.headers["x-model-revision"] == REVISION


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"inputs": []}', b'{"inputs": [{"name": "nope"}]}']
)
async def test_a_bad_request_is_the_callers_error(service: Service, content: bytes) -> None:
    answer = await service.client.post(INFER, content=content)

    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert service.count(400) == 1


async def test_a_body_needs_no_content_type(service: Service) -> None:
    answer = await service.client.post(INFER, content=orjson.dumps(body(0)))

    assert "content-type" not in answer.request.headers
    assert answer.status_code == 200


async def test_a_failure_inside_the_model_is_the_servers_error_and_is_counted(
    service: Service,
) -> None:
    answer = await service.client.post(INFER, json=body(7))

    assert answer.status_code == 500
    assert "failed on these inputs" in answer.json()["error"]
    assert answer.headers["x-model-revision"] == REVISION
    assert service.count(500) == 1


async def test_failures_of_a_broken_model_do_not_flood_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        await service.client.post(INFER, json=body(7))

    assert caplog.text.count("the model failed on a request") == 1


async def test_only_the_outputs_that_are_asked_for_come_back(
    models: Callable[[ModelProto], Any],
) -> None:
    service = Service()
    service.dataplane.attach(models(onnx_models.add()))
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]} for name in ("a", "b")
    ]

    answer = await service.client.post(
        INFER, json={"inputs": inputs, "outputs": [{"name": "difference"}]}
    )

    assert [output["name"] for output in answer.json()["outputs"]] == ["difference"]
    service.dataplane.close()


async def test_strings_go_in_and_come_out(models: Callable[[ModelProto], Any]) -> None:
    service = Service()
    service.dataplane.attach(models(onnx_models.identity(TensorProto.STRING, ("N",))))
    words = ["", "naïve", "\u0000 inside", "🙂"]
    tensor = {"name": "x", "datatype": "BYTES", "shape": [4], "data": words}

    answer = await service.client.post(INFER, json={"inputs": [tensor]})

    assert answer.json()["outputs"][0]["data"] == words
    service.dataplane.close()


async def test_a_large_tensor_is_answered_like_a_small_one(
    models: Callable[[ModelProto], Any],
) -> None:
    service = Service()
    service.dataplane.attach(models(onnx_models.identity()))
    values = [float(i) for i in range(100_000)]
    tensor = {"name": "x", "datatype": "FP32", "shape": [50_000, 2], "data": values}

    answer = await service.client.post(INFER, json={"inputs": [tensor]})

    assert answer.json()["outputs"][0]["data"] == values
    service.dataplane.close()


@pytest.mark.parametrize("length", ["declared", "unknown"])
async def test_a_body_beyond_the_limit_is_refused(length: str) -> None:
    service = Service(max_request_bytes=100)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 50

    answer = await service.client.post(
        INFER, content=b" " * 250 if length == "declared" else chunks()
    )

    assert answer.status_code == 413
    assert "larger than 100 bytes" in answer.json()["error"]
    assert answer.headers["connection"] == "close"
    assert service.count(413) == 1
    service.dataplane.close()


async def test_a_body_that_never_ends_is_given_up() -> None:
    service = Service(request_timeout_s=0.05)
    forever = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        await forever.wait()

    answer = await service.client.post(INFER, content=chunks())

    assert answer.status_code == 408
    service.dataplane.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "identity"}, 200),
        ({"inference-header-content-length": "10"}, 400),
        ({"content-type": "text/plain"}, 200),
    ],
)
async def test_encodings_that_are_not_spoken_are_refused_clearly(
    service: Service, headers: dict[str, str], status: int
) -> None:
    answer = await service.client.post(INFER, content=orjson.dumps(body(0)), headers=headers)

    assert answer.status_code == status


async def test_while_the_model_loads_the_server_lives_but_is_not_ready() -> None:
    service = Service()

    assert (await service.client.get("/v2/health/live")).status_code == 200
    for path in ("/v2/health/ready", f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}"):
        assert (await service.client.get(path)).status_code == 503
    answer = await service.client.post(INFER, json=body(0))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    service.dataplane.close()


async def test_draining_asks_clients_to_go_elsewhere(service: Service) -> None:
    service.dataplane.begin_drain()

    assert (await service.client.get("/v2/health/ready")).status_code == 503
    assert (await service.client.get("/v2/health/live")).status_code == 200
    answer = await service.client.post(INFER, json=body(0))
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


class TestUnderLoad:
    @pytest.fixture
    def model(self, models: Callable[[ModelProto], Any]) -> Iterator[GatedModel]:
        model = GatedModel(models(onnx_models.lookup()))
        yield model
        model.gate.set()

    @pytest.fixture
    def service(self, model: GatedModel) -> Iterator[Service]:
        service = Service()
        service.dataplane.attach(model)
        yield service
        model.gate.set()
        service.dataplane.close()

    async def occupy(
        self, service: Service, model: GatedModel, waiting: int = 0
    ) -> "list[asyncio.Task[httpx.Response]]":
        """Take the only slot and `waiting` places in the queue."""
        tasks = [
            asyncio.create_task(service.client.post(INFER, json=body(0)))
            for _ in range(1 + waiting)
        ]
        assert await asyncio.to_thread(model.entered.acquire, timeout=30)
        depth = service.metrics.registry.get_sample_value
        labels = {"model": NAME, "revision": REVISION}
        async with asyncio.timeout(30):
            while depth("model_server_queue_depth", labels) != waiting:  # noqa: ASYNC110 - a metric
                await asyncio.sleep(0)
        return tasks

    async def test_liveness_does_not_wait_for_inference(
        self, service: Service, model: GatedModel
    ) -> None:
        tasks = await self.occupy(service, model)

        assert (await service.client.get("/v2/health/live")).status_code == 200
        assert not tasks[0].done()

    async def test_a_full_queue_sheds_load(self, service: Service, model: GatedModel) -> None:
        tasks = await self.occupy(service, model, waiting=1)

        answer = await service.client.post(INFER, json=body(0))

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert service.count(503) == 1
        model.gate.set()
        assert [(await task).status_code for task in tasks] == [200, 200]

    async def test_a_callers_timeout_is_kept(self, service: Service, model: GatedModel) -> None:
        await self.occupy(service, model)

        answer = await service.client.post(INFER, json=body(0, parameters={"timeout": 10_000}))

        assert answer.status_code == 504
        assert service.count(504) == 1

    async def test_requests_are_in_flight_until_they_are_answered(
        self, service: Service, model: GatedModel
    ) -> None:
        def in_flight() -> float | None:
            return service.metrics.registry.get_sample_value(
                "model_server_requests_in_flight", {"model": NAME, "revision": REVISION}
            )

        tasks = await self.occupy(service, model, waiting=1)

        assert in_flight() == 2
        model.gate.set()
        await asyncio.gather(*tasks)
        assert in_flight() == 0


async def test_all_series_exist_before_the_first_request(service: Service) -> None:
    for code in (200, 400, 500, 503):
        assert service.count(code) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
# Valid enough to get past the first checks, wrong in any way behind them.
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "datatype": st.sampled_from(["INT64", "FP32", "BYTES", "nope"]) | JSON,
        "shape": st.lists(st.integers(-1, 4)) | st.just([2**63]) | JSON,
        "data": st.lists(st.integers(-2, 1)) | st.lists(st.lists(st.integers(0, 1))) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data", "x"]), JSON) | JSON,
    },
)
BODIES = JSON | st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={
        "id": JSON,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("y") | JSON})) | JSON,
        "parameters": JSON,
    },
)


def encodable(value: object) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


@settings(
    # the fixture's folder is overwritten by each example; a busy machine is no failure
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(content=BODIES.filter(encodable).map(orjson.dumps) | st.binary())
async def test_no_body_whatsoever_is_the_servers_error(
    models: Callable[[ModelProto], Any], content: bytes
) -> None:
    service = Service()
    # takes every value there is, so that a 5xx can only be the server's own doing
    service.dataplane.attach(models(onnx_models.identity(TensorProto.INT64, ("N",))))
    try:
        answer = await service.client.post(INFER, content=content)
    finally:
        service.dataplane.close()

    assert answer.status_code in {200, 400}
    assert answer.status_code == 200 or set(answer.json()) == {"error"}
