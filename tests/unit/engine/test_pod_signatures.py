"""Reading a model's metadata from pods: real servers on loopback, and what is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from model_operator.adapters.inference import InferenceClient, UnreadableError
from model_operator.api.types import OpsetImport, Signature, Tensor
from model_operator.engine.preflight import PodSignatures, ready_pods
from model_operator.engine.store import Key, Store
from tests.unit.metrics.served import serving
from tests.unit.server import onnx_models
from tests.unit.server.serving import NAME, REVISION, config_for
from tests.unit.server.serving import serving as model_server

METADATA = {
    "name": NAME,
    "versions": [REVISION],
    "platform": "onnx_onnxv1",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
KEY = Key("vision", NAME)


@pytest.fixture
async def client() -> AsyncIterator[InferenceClient]:
    client = InferenceClient()
    yield client
    await client.close()


async def read(client: InferenceClient, port: int, timeout_s: float = 5.0) -> Signature:
    return await client.signature(
        "127.0.0.1", port, model=NAME, revision=REVISION, timeout_s=timeout_s
    )


async def test_a_real_server_tells_its_signature(client: InferenceClient, tmp_path: Path) -> None:
    model = onnx_models.add()
    model.producer_name, model.producer_version = "pytorch", "2.9"
    config = config_for(onnx_models.write(model, tmp_path / "model.onnx"))
    async with model_server(config) as server:
        signature = await read(client, server.server.http_port)

    assert signature == Signature(
        inputs=tuple(Tensor(name=name, datatype="FP32", shape=(-1, 2)) for name in ("a", "b")),
        outputs=tuple(
            Tensor(name=name, datatype="FP32", shape=(-1, 2)) for name in ("sum", "difference")
        ),
        opset_imports=(OpsetImport(domain="ai.onnx", version=17),),
        producer="pytorch 2.9",
    )


async def test_metadata_without_extensions_is_enough(client: InferenceClient) -> None:
    async with serving(answering(METADATA)) as port:
        signature = await read(client, port)

    assert signature.inputs == (Tensor(name="x", datatype="FP32", shape=(-1, 2)),)
    assert signature.opset_imports == ()


def answering(document: Any, status: int = 200) -> Any:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=json.dumps(document), status=status)

    return answer


def tensors(count: int, rank: int = 1) -> list[dict[str, Any]]:
    return [{"name": f"x{i}", "datatype": "FP32", "shape": [1] * rank} for i in range(count)]


@pytest.mark.parametrize(
    ("document", "status", "words"),
    [
        ({"error": "loading"}, 503, "it answers 503"),
        ("no metadata", 200, "no model metadata"),
        ({**METADATA, "inputs": [{"name": "x"}]}, 200, "no model metadata"),
        ({**METADATA, "versions": ["digits-other"]}, 200, "it serves digits-other"),
        ({**METADATA, "versions": []}, 200, "it serves no revision"),
        ({**METADATA, "inputs": tensors(1025)}, 200, "more inputs, outputs or dimensions"),
        ({**METADATA, "outputs": tensors(1, rank=65)}, 200, "more inputs, outputs or dimensions"),
        ({**METADATA, "inputs": tensors(1) * 2}, 200, "the same name"),
        ({**METADATA, "more": "x" * 300_000}, 200, "larger than"),
    ],
)
async def test_what_is_no_signature_of_this_revision_is_refused(
    client: InferenceClient, document: Any, status: int, words: str
) -> None:
    async with serving(answering(document, status)) as port:
        with pytest.raises(UnreadableError, match=words):
            await read(client, port)


async def test_opsets_that_no_record_can_hold_are_left_out(client: InferenceClient) -> None:
    parameters = {"opset.a": -1, "opset.b": 2**40, "opset.c": "x", "opset.d": 7, "ir_version": 8}
    async with serving(answering({**METADATA, "parameters": parameters})) as port:
        signature = await read(client, port)

    assert signature.opset_imports == (OpsetImport(domain="d", version=7),)


async def test_a_server_that_hangs_is_given_up(client: InferenceClient) -> None:
    forever = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await forever.wait()
        return web.Response()

    async with serving(hang) as port:
        with pytest.raises(UnreadableError, match="no answer within"):
            await read(client, port, timeout_s=0.05)
        forever.set()


async def test_a_port_that_nobody_listens_on_is_unreadable(client: InferenceClient) -> None:
    async with serving(answering(METADATA)) as port:
        pass
    with pytest.raises(UnreadableError):
        await read(client, port)


def pod(name: str, address: str = "127.0.0.1", ready: str = "True", **labels: str) -> Any:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": KEY.namespace,
            "resourceVersion": "1",
            "labels": {
                "modeldeployment.dev/name": NAME,
                "modeldeployment.dev/revision": REVISION,
                **labels,
            },
        },
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
    }


def test_only_ready_pods_of_the_revision_with_an_address_are_asked() -> None:
    store = Store()
    for one in (
        pod("good"),
        pod("unready", ready="False"),
        pod("without-address", address=""),
        pod("other", **{"modeldeployment.dev/revision": "digits-other"}),
    ):
        store.put(one)

    assert [one["metadata"]["name"] for one in ready_pods(store, KEY, REVISION)] == ["good"]


async def test_the_next_pod_is_asked_when_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    store.put(pod("a", address="127.0.0.9"))
    store.put(pod("b"))
    async with serving(answering(METADATA)) as port:
        monkeypatch.setattr("model_operator.engine.preflight.HTTP_PORT", port)
        signatures = PodSignatures(store)
        try:
            signature = await signatures.ask(KEY, REVISION)
        finally:
            await signatures.close()

    assert signature.outputs[0].name == "y"


async def test_when_no_pod_tells_the_last_reason_is_named() -> None:
    store = Store()
    signatures = PodSignatures(store)
    with pytest.raises(UnreadableError, match="no ready pod"):
        await signatures.ask(KEY, REVISION)
    store.put(pod("a", address="127.0.0.9"))
    with pytest.raises(UnreadableError, match="pod a: "):
        await signatures.ask(KEY, REVISION)
    await signatures.close()
