import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from onnx import ModelProto, TensorProto

from tests.unit.server import onnx_models
from tests.unit.server.rest_service import Service, body
from tests.unit.server.serving import INFER, NAME, REVISION


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
        "parameters": {"opset.ai.onnx": 17, "ir_version": 8, "producer": ""},
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


async def test_all_series_exist_before_the_first_request(service: Service) -> None:
    for code in (200, 400, 500, 503):
        assert service.count(code) == 0
