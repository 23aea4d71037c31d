"""Connections are passed on in both directions, to their end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hack.cluster import sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

LARGE = b"x" * 1_000_000


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer only when the caller has said everything, as `kubectl cp` does."""
    writer.write((await reader.read()).upper())
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Serve on a free port, which is yielded; wait for the handlers at the end."""
    handlers: list[asyncio.Task[None]] = []

    async def remembered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.append(task)
        await handler(reader, writer)

    server = await asyncio.start_server(remembered, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*handlers)


async def test_what_is_sent_arrives_and_so_does_the_answer_to_its_end() -> None:
    async with serving(shout) as inner, serving(sandbox.connection(inner)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LARGE)
        writer.write_eof()

        answer = await asyncio.wait_for(reader.read(), timeout=10)

        writer.close()
        await writer.wait_closed()
    assert answer == LARGE.upper()


async def test_a_port_that_nobody_listens_on_is_closed_at_once() -> None:
    async with serving(shout) as closed:
        pass

    async with serving(sandbox.connection(closed)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        assert await asyncio.wait_for(reader.read(), timeout=10) == b""

        writer.close()
        await writer.wait_closed()


async def test_a_caller_that_goes_away_ends_the_inner_connection() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()
        await writer.wait_closed()

    async with serving(listen) as inner, serving(sandbox.connection(inner)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"half")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert heard == [b"half"]
