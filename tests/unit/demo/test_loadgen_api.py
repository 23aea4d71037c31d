import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from hack.demo.loadgen.answers import Window
from hack.demo.loadgen.app import make_app
from hack.demo.loadgen.sender import Request, Target

Client = TestClient[web.Request, web.Application]


class Arrivals:
    """Lets a test wait until so many requests have reached the gateway."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = asyncio.Condition()

    async def add(self) -> None:
        async with self._changed:
            self._count += 1
            self._changed.notify_all()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self._count >= count)


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


@pytest.fixture
async def client(arrivals: Arrivals) -> AsyncIterator[Client]:
    async def infer(_request: web.Request) -> web.Response:
        await arrivals.add()
        scores = json.dumps({"outputs": [{"data": [0.0, 1.0]}]})
        return web.Response(text=scores, headers={"x-model-revision": "digits-1"})

    gateway = web.Application()
    gateway.router.add_post("/infer", infer)
    async with TestServer(gateway) as server:
        target = Target(url=str(server.make_url("/infer")), host="x")
        app = make_app(target, (Request(body=b"{}", label=1),))
        async with TestClient(TestServer(app)) as api:
            yield api


async def windows(client: Client, since: int = 0) -> tuple[list[Window], dict[str, Any]]:
    response = await client.get("/stats", params={"since": since})
    stats = await response.json()
    return [Window.from_json(window) for window in stats["windows"]], stats


async def test_it_sends_at_the_rate_from_start_to_stop(client: Client, arrivals: Arrivals) -> None:
    assert (await client.post("/start", json={"rate": 200})).status == 200
    await arrivals.reach(40)
    assert (await client.post("/stop")).status == 200

    seen, stats = await windows(client)

    sent = sum(window.sent for window in seen)
    seconds = sum(window.length_s for window in seen)
    assert sent / seconds == pytest.approx(200, rel=0.25)
    assert sum(cell.correct for window in seen for cell in window.cells) == sent
    assert seen[-1].in_flight == 0
    assert stats["rate"] is None


async def test_a_reader_goes_on_where_it_stopped(client: Client, arrivals: Arrivals) -> None:
    await client.post("/start", json={"rate": 100})
    await arrivals.reach(30)
    first, stats = await windows(client)
    await client.post("/stop")
    rest, _ = await windows(client, since=stats["next"])

    assert first
    numbers = [window.seq for window in first + rest]
    assert numbers == list(range(len(numbers)))


async def test_starting_again_at_the_same_rate_changes_nothing(client: Client) -> None:
    await client.post("/start", json={"rate": 50})

    assert (await client.post("/start", json={"rate": 50})).status == 200
    assert (await client.post("/start", json={"rate": 60})).status == 409


@pytest.mark.parametrize("body", ["", "{}", '{"rate": 0}', '{"rate": -1}', '{"rate": "x"}', "[]"])
async def test_a_rate_that_is_none_is_refused(client: Client, body: str) -> None:
    response = await client.post("/start", data=body)

    assert response.status == 400


async def test_a_window_number_that_is_none_is_refused(client: Client) -> None:
    assert (await client.get("/stats", params={"since": "x"})).status == 400


async def test_stopping_when_it_does_not_run_is_no_error(client: Client) -> None:
    assert (await client.post("/stop")).status == 200
    assert (await client.get("/healthz")).status == 200
