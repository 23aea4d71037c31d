"""A real Prometheus on loopback, which scrapes pages that a test may change."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.apiserver.control_plane import tool

SCRAPE_INTERVAL_S = 0.5
_START_TIMEOUT_S = 30.0


@dataclass
class Page:
    """The metrics page of one pod."""

    text: str = ""
    up: bool = True
    port: int = 0


@dataclass
class Pods:
    """Pages of pods, each behind a port of its own."""

    pages: dict[str, Page] = field(default_factory=dict)
    servers: list[ThreadingHTTPServer] = field(default_factory=list)

    def start(self, name: str) -> None:
        page = Page()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if page.up else 500)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(page.text.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Keep the test's output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        page.port = server.server_address[1]
        Thread(target=server.serve_forever, daemon=True).start()
        self.pages[name] = page
        self.servers.append(server)

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class RealPrometheus:
    url: str
    pods: Pods


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPrometheus]:
    """One for all tests; each uses metric names of its own."""
    folder = tmp_path_factory.mktemp("prometheus")
    pods = Pods()
    for name in ("a", "b"):
        pods.start(name)
    config = folder / "prometheus.yml"
    config.write_text(_config(pods))
    port = _free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, folder / "log")
        yield RealPrometheus(url, pods)
    finally:
        process.terminate()
        process.wait(20)
        pods.stop()


def _config(pods: Pods) -> str:
    targets = "\n".join(
        f"  - targets: ['127.0.0.1:{page.port}']\n    labels: {{namespace: vision, pod: {name}}}"
        for name, page in pods.pages.items()
    )
    interval = f"{round(SCRAPE_INTERVAL_S * 1000)}ms"
    return (
        f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n"
        f"scrape_configs:\n- job_name: pods\n  static_configs:\n{targets}\n"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):  # noqa: S310 - loopback
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Prometheus did not become ready:\n{log.read_text()[-2000:]}")
