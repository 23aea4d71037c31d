"""The work queue: one key at a time, none starved, what fails comes again."""

from __future__ import annotations

import asyncio

from model_operator.engine.queue import WorkQueue


async def test_a_key_that_always_comes_again_does_not_starve_the_rest() -> None:
    async def again(key: str) -> None:
        queue.add(key)

    queue: WorkQueue[str] = WorkQueue(again, failed=lambda *_: None, workers=1)
    queue.add("busy")
    running = asyncio.create_task(queue.run())
    for _ in range(10):
        await asyncio.sleep(0)
    queue.stop()
    async with asyncio.timeout(5):
        await running
