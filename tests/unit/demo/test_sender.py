import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from hack.demo.loadgen.answers import (
    CONNECT,
    GATEWAY,
    MALFORMED,
    OVERLOAD,
    RESET,
    TIMEOUT,
    Answer,
    Tally,
)
from hack.demo.loadgen.sender import Request, Sender, Target, answered_digit

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
IMAGE = Request(body=b'{"inputs": []}', label=3)
SCORES = [0.0, 0.1, 0.2, 0.9, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0]


class Gateway:
    """A web server on loopback whose one answer the test chooses."""

    def __init__(self) -> None:
        self.handler: Handler = inference
        self.requests: list[tuple[str, bytes]] = []
        self.connections: set[object] = set()
        app = web.Application()
        app.router.add_post("/infer", self._handle)
        self._server = TestServer(app)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.host, await request.read()))
        self.connections.add(request.transport)
        return await self.handler(request)

    async def start(self) -> None:
        await self._server.start_server()

    async def stop(self) -> None:
        await self._server.close()

    def target(self, timeout_s: float = 5.0, max_in_flight: int = 100) -> Target:
        return Target(
            url=str(self._server.make_url("/infer")),
            host="digits.example.com",
            timeout_s=timeout_s,
            max_in_flight=max_in_flight,
        )


async def inference(_request: web.Request) -> web.StreamResponse:
    body = json.dumps({"outputs": [{"name": "logits", "data": SCORES}]})
    return web.Response(text=body, headers={"x-model-revision": "digits-1"})


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    server = Gateway()
    await server.start()
    yield server
    await server.stop()


async def send(target: Target, count: int, rate: float = 200.0) -> list[Answer]:
    """The answers of at least `count` requests."""
    answers: list[Answer] = []
    stop = asyncio.Event()

    def observe(answer: Answer) -> None:
        answers.append(answer)
        if len(answers) >= count:
            stop.set()

    await Sender(target, (IMAGE,), Tally(), observe).run(rate, stop)
    return answers


async def test_an_answer_carries_the_revision_and_whether_the_digit_is_right(
    gateway: Gateway,
) -> None:
    answers = await send(gateway.target(), 3)

    assert {(a.revision, a.code, a.correct) for a in answers} == {("digits-1", "200", True)}
    assert gateway.requests[0] == ("digits.example.com", IMAGE.body)


async def test_connections_are_kept_alive(gateway: Gateway) -> None:
    answers = await send(gateway.target(), 12, rate=25)

    assert len(answers) >= 12
    assert len(gateway.connections) < 12


async def test_an_error_of_the_model_counts_for_its_revision(gateway: Gateway) -> None:
    async def fail(_request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"error": "x"}, status=500, headers={"x-model-revision": "digits-2"}
        )

    gateway.handler = fail
    answers = await send(gateway.target(), 1)

    assert (answers[0].revision, answers[0].code) == ("digits-2", "500")


async def test_an_answer_without_a_revision_counts_for_the_gateway(gateway: Gateway) -> None:
    async def unavailable(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    gateway.handler = unavailable
    answers = await send(gateway.target(), 1)

    assert (answers[0].revision, answers[0].code) == (GATEWAY, "503")


async def test_a_200_that_is_no_inference_response_is_malformed(gateway: Gateway) -> None:
    async def page(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", headers={"x-model-revision": "digits-1"})

    gateway.handler = page
    answers = await send(gateway.target(), 1)

    assert (answers[0].code, answers[0].correct) == (MALFORMED, False)


async def test_a_connection_that_breaks_is_a_reset_and_is_not_tried_again(gateway: Gateway) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    gateway.handler = cut
    answers = await send(gateway.target(), 5)

    assert {a.code for a in answers} == {RESET}
    assert len(gateway.requests) == len(answers)


async def test_no_answer_in_time_is_a_timeout(gateway: Gateway) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    gateway.handler = hang
    answers = await send(gateway.target(timeout_s=0.05), 1)

    assert {a.code for a in answers} == {TIMEOUT}
    assert answers[0].latency_ms >= 50


async def test_a_closed_port_is_a_connect_error() -> None:
    target = Target(url=f"http://127.0.0.1:{unused_port()}/infer", host="x")

    answers = await send(target, 1)

    assert {a.code for a in answers} == {CONNECT}


async def test_slow_answers_do_not_slow_the_sender_down(gateway: Gateway) -> None:
    release = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        if len(gateway.requests) >= 10:
            release.set()
        await release.wait()
        return await inference(request)

    gateway.handler = wait
    answers = await send(gateway.target(), 10)

    assert {a.code for a in answers} == {"200"}


async def test_above_the_limit_in_flight_a_due_request_counts_as_overload(
    gateway: Gateway,
) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    gateway.handler = hang
    answers = await send(gateway.target(timeout_s=0.1, max_in_flight=2), 3)

    assert OVERLOAD in {a.code for a in answers}
    assert len(gateway.requests) <= 4


async def test_it_waits_until_a_new_route_is_served_and_counts_nothing_of_it(
    gateway: Gateway,
) -> None:
    async def served_at_last(request: web.Request) -> web.StreamResponse:
        return await inference(request) if len(gateway.requests) > 2 else web.Response(status=404)

    gateway.handler = served_at_last
    tally = Tally()

    assert await Sender(gateway.target(), (IMAGE,), tally).wait_until_served(timeout_s=10)
    assert len(gateway.requests) == 3
    assert tally.close(start_time=0, monotonic_s=0, length_s=1).cells == ()


async def test_it_does_not_wait_for_ever(gateway: Gateway) -> None:
    async def missing(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    gateway.handler = missing

    assert not await Sender(gateway.target(), (IMAGE,), Tally()).wait_until_served(timeout_s=0.1)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"outputs": []}', b'{"outputs": [{"data": []}]}'])
def test_a_body_without_scores_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match="not an inference response"):
        answered_digit(body)


def test_the_digit_with_the_largest_score_is_the_answer() -> None:
    assert answered_digit(json.dumps({"outputs": [{"data": SCORES}]}).encode()) == 3
