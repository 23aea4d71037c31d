"""The watches end when they are told to, whatever Kopf makes of that."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import kopf
import pytest
from kubernetes.aio.client import Configuration

from model_operator.engine import triggers
from model_operator.engine.store import Store
from model_operator.engine.triggers import Watches


async def test_a_watch_that_swallows_its_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancelled = []

    async def operator(*, stop_flag: threading.Event, **_: Any) -> None:
        """As Kopf's own: each task is cancelled once, and then waited for."""

        async def watch() -> None:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    cancelled.append(1)
                    if len(cancelled) == 3:
                        raise

        watching = asyncio.create_task(watch())
        while not stop_flag.is_set():  # noqa: ASYNC110 - an event of threads
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait({watching})

    monkeypatch.setattr(kopf, "operator", operator)
    monkeypatch.setattr(triggers, "_INSIST_S", 0.02)
    watches = Watches(Store(), lambda _: None, Configuration(), ())
    running = asyncio.create_task(watches.run())
    await asyncio.sleep(0.1)
    watches.stop()
    await asyncio.wait_for(running, 10)
    assert len(cancelled) == 3
