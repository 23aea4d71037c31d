import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from model_server.config import ServerConfig
from model_server.failures import Reason, StartupError
from model_server.lifecycle import Server, load
from model_server.model import Model
from tests.unit.server import onnx_models
from tests.unit.server.serving import (
    INFER,
    REVISION,
    GatedModel,
    Running,
    config_for,
    gate_loading,
    running,
    serving,
)

BODY = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [1]}]}
WIRE_BODY = orjson.dumps(BODY)
WIRE_REQUEST = (
    f"POST {INFER} HTTP/1.1\r\nhost: server\r\ncontent-length: {len(WIRE_BODY)}\r\n\r\n".encode()
    + WIRE_BODY
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnx_models.write(onnx_models.lookup(), tmp_path / "model.onnx")


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator["Gated"]:
    gated = Gated()
    gate_loading(monkeypatch, gated.wrap)
    yield gated
    gated.model.gate.set()


class Gated:
    """Gives access to the model that a server loads."""

    model: GatedModel

    def wrap(self, model: Model) -> Model:
        self.model = GatedModel(model)
        return self.model

    async def entered(self) -> None:
        assert await asyncio.to_thread(self.model.entered.acquire, timeout=30)


@contextlib.asynccontextmanager
async def raw_connection(
    server: Running,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server.http_port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_server_serves_and_tells_its_metrics(path: Path) -> None:
    async with serving(config_for(path)) as server, server.client() as client:
        answer = await client.post(INFER, json=BODY)
        metrics = await client.get(server.metrics_url)

    assert answer.json()["outputs"][0]["data"] == [20.0]
    assert answer.headers["x-model-revision"] == REVISION
    assert f'requests_total{{code="200",model="digits",revision="{REVISION}"}} 1.0' in metrics.text
    assert f'model_server_ready{{model="digits",revision="{REVISION}"}} 1.0' in metrics.text
    assert "_created" not in metrics.text


async def test_the_server_lives_before_it_is_ready(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk = threading.Event()

    def slow_load(config: ServerConfig) -> Model:
        assert slow_disk.wait(timeout=30)
        return load(config)

    monkeypatch.setattr("model_server.lifecycle.load", slow_load)
    async with running(config_for(path)) as server, server.client() as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 503

        slow_disk.set()
        await server.server.ready.wait()

        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_stopping_does_not_wait_for_the_model_to_load(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forever = threading.Event()
    monkeypatch.setattr("model_server.lifecycle.load", lambda _: forever.wait(timeout=60))

    async with running(config_for(path, drain_delay="1h")) as server:
        server.server.stop()
        async with asyncio.timeout(30):
            assert await server.life == 1, "one thread is still loading"
    forever.set()


async def test_a_model_that_cannot_be_loaded_ends_the_server(path: Path) -> None:
    config = config_for(path, digest="sha256:" + "0" * 64)

    async with running(config) as server:
        with pytest.raises(StartupError) as failure:
            await server.life

        assert failure.value.reason is Reason.DIGEST_MISMATCH
        async with server.client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/v2/health/live")


@pytest.mark.parametrize("port", ["http_port", "metrics_port"])
async def test_a_port_that_is_taken_is_named(path: Path, port: str) -> None:
    async with serving(config_for(path)) as first:
        taken = str(getattr(first.server, port))
        with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1 port {taken}"):
            await Server(config_for(path, **{port: taken})).run()


async def test_health_is_answered_while_the_model_runs(path: Path, gated: Gated) -> None:
    async with serving(config_for(path)) as server, server.client() as client:
        inference = asyncio.create_task(client.post(INFER, json=BODY))
        await gated.entered()

        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200

        gated.model.gate.set()
        assert (await inference).status_code == 200


async def test_a_client_that_leaves_the_queue_frees_its_place(path: Path, gated: Gated) -> None:
    config = config_for(path, concurrency="1", max_queue="1")
    async with serving(config) as server, server.client() as client:
        first = asyncio.create_task(client.post(INFER, json=BODY))
        await gated.entered()
        async with raw_connection(server) as (_, writer):
            writer.write(WIRE_REQUEST)
            await metric(client, server, "model_server_queue_depth", 1)

        await metric(client, server, "model_server_queue_depth", 0)
        await metric(client, server, 'requests_total{code="499"', 1)

        gated.model.gate.set()
        assert (await first).status_code == 200


async def metric(client: httpx.AsyncClient, server: Running, name: str, value: float) -> None:
    """Wait until a metric has a value."""
    async with asyncio.timeout(30):
        while True:
            text = (await client.get(server.metrics_url)).text
            lines = [line for line in text.splitlines() if name in line and line[0] != "#"]
            if lines and float(lines[0].split()[-1]) == value:
                return
            await asyncio.sleep(0.01)


async def test_connections_end_at_their_age(path: Path) -> None:
    async with serving(config_for(path, connection_max_age="0s")) as server:
        async with server.client() as client:
            answer = await client.post(INFER, json=BODY)

        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"


async def test_young_connections_are_kept(path: Path) -> None:
    async with serving(config_for(path)) as server, raw_connection(server) as (reader, writer):
        for _ in range(3):
            writer.write(WIRE_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")

            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in head
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


async def test_what_is_no_http_gets_an_error_like_any_other(path: Path) -> None:
    async with serving(config_for(path)) as server, raw_connection(server) as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        head, body = (await reader.read()).split(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert f"x-model-revision: {REVISION}".encode() in head
    assert set(orjson.loads(body)) == {"error"}


async def test_a_connection_that_never_asks_is_closed(path: Path) -> None:
    async with (
        serving(config_for(path, keep_alive="1s")) as server,
        raw_connection(server) as (reader, _),
        asyncio.timeout(30),
    ):
        assert await reader.read() == b""


async def test_no_request_is_lost_by_a_drain(path: Path) -> None:
    """Clients go on until a router would have noticed: all of them get their answers."""
    answers: list[httpx.Response] = []
    under_way, noticed = asyncio.Event(), asyncio.Event()

    async def keep_asking(client: httpx.AsyncClient) -> None:
        while not noticed.is_set():
            answers.append(await client.post(INFER, json=BODY))
            if len(answers) == 50:
                under_way.set()

    async with serving(config_for(path, drain_delay="1h", drain_timeout="30s")) as server:
        async with server.client() as client, asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(keep_asking(client))
            await under_way.wait()
            before = len(answers)
            server.server.stop()
            assert (await client.get("/v2/health/ready")).status_code == 503
            # what a router takes to notice
            await asyncio.sleep(0.2)
            noticed.set()
        server.server.stop()
        assert await server.life == 0

    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) > before + 10, "the server went on serving while it drained"
    assert answers[-1].headers["connection"] == "close"


async def test_what_was_accepted_is_finished(path: Path, gated: Gated) -> None:
    config = config_for(path, concurrency="1", max_queue="10", drain_timeout="10s")
    async with serving(config) as server, server.client() as client:
        inferences = [asyncio.create_task(client.post(INFER, json=BODY)) for _ in range(4)]
        await gated.entered()
        await metric(client, server, "model_server_queue_depth", 3)

        server.server.stop()
        await until_refused(server)
        gated.model.gate.set()

        assert [(await inference).status_code for inference in inferences] == [200] * 4
        assert await server.life == 0


async def until_refused(server: Running) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                async with raw_connection(server):
                    await asyncio.sleep(0.01)
            except ConnectionRefusedError:
                return


async def test_what_does_not_finish_in_time_is_told_so(path: Path, gated: Gated) -> None:
    async with serving(config_for(path, drain_timeout="1s")) as server, server.client() as client:
        inference = asyncio.create_task(client.post(INFER, json=BODY))
        await gated.entered()

        server.server.stop()

        answer = await inference
        assert answer.status_code == 503
        assert answer.json() == {"error": "the server stopped before the answer was there"}
        assert await server.life == 1, "one thread is still inside the model"
        gated.model.gate.set()


@pytest.mark.parametrize("sent_before", [0, 10], ids=["nothing sent yet", "half a head sent"])
async def test_a_request_on_its_way_at_the_stop_is_answered(path: Path, sent_before: int) -> None:
    async with serving(config_for(path)) as server, raw_connection(server) as (reader, writer):
        writer.write(WIRE_REQUEST[:sent_before])
        await writer.drain()
        await later_connection_answered(server)

        server.server.stop()
        await until_refused(server)
        writer.write(WIRE_REQUEST[sent_before:])

        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head
        assert await server.life == 0


async def later_connection_answered(server: Running) -> None:
    """See an answer on a newer connection: all older ones were accepted before it."""
    async with server.client() as client:
        assert (await client.get("/v2/health/live")).status_code == 200


async def test_a_second_stop_does_not_wait_for_the_routers(path: Path) -> None:
    async with serving(config_for(path, drain_delay="1h")) as server:
        server.server.stop()
        server.server.stop()

        async with asyncio.timeout(30):
            assert await server.life == 0


async def test_an_http_server_that_ends_by_itself_ends_the_life(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("no event loop for you")

    monkeypatch.setattr("uvicorn.Server.main_loop", broken)

    with pytest.raises(RuntimeError, match="no event loop"):
        await asyncio.wait_for(Server(config_for(path)).run(), timeout=30)
