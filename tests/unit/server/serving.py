"""Servers and models that run for real, for tests that look at them from outside."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from onnx import ModelProto

from model_server.config import ServerConfig, parse_serve
from model_server.digest import digest_of
from model_server.lifecycle import Server, load
from model_server.model import Model, Run, SessionSettings, load_model
from tests.unit.server import onnx_models

NAME = "digits"
REVISION = "digits-0123456789"
INFER = f"/v2/models/{NAME}/infer"


def loaded(model: ModelProto, folder: Path) -> Model:
    """A real session of `model`."""
    return load_model(onnx_models.write(model, folder / "model.onnx"), SessionSettings())


class GatedModel(Model):
    """A real model whose runs wait until a test opens the gate."""

    def __init__(self, model: Model) -> None:
        super().__init__(model._session, model.signature)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def run(self, outputs: Sequence[Any], feed: Mapping[str, Any], run: Run) -> list[Any]:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.entered.release()
        try:
            assert self.gate.wait(timeout=30), "the test never opened the gate"
            return super().run(outputs, feed, run)
        finally:
            with self._lock:
                self.running -= 1


def config_for(path: Path, **flags: str) -> ServerConfig:
    """The configuration of a server of the model at `path`, on free ports of loopback."""
    settings = {
        "model": path.as_uri(),
        "digest": digest_of(path),
        "name": NAME,
        "revision": REVISION,
        "host": "127.0.0.1",
        "http-port": "0",
        "metrics-port": "0",
        "model-dir": str(path.parent / "downloads"),
        "drain-delay": "0",
        "termination-message-path": str(path.parent / "termination-log"),
        **{name.replace("_", "-"): value for name, value in flags.items()},
    }
    return parse_serve([f"--{name}={value}" for name, value in settings.items()], {})


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens, and the task that is its life."""

    server: Server
    life: "asyncio.Task[int]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.server.metrics_port}/metrics"

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, **options)


@contextlib.asynccontextmanager
async def running(config: ServerConfig) -> AsyncIterator[Running]:
    """Start a server; at the end stop it at once."""
    server = Server(config)
    life = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(30):
            await server.listening.wait()
        yield Running(server, life)
    finally:
        server.stop()
        server.stop()
        with contextlib.suppress(Exception):
            await life


@contextlib.asynccontextmanager
async def serving(config: ServerConfig) -> AsyncIterator[Running]:
    """Start a server and wait until it is ready."""
    async with running(config) as server:
        async with asyncio.timeout(30):
            await server.server.ready.wait()
        yield server


def gate_loading(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Model], Model]) -> None:
    """Let servers of this test serve what `wrap` makes of the model that they loaded."""
    monkeypatch.setattr("model_server.lifecycle.load", lambda config: wrap(load(config)))
