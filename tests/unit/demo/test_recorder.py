"""The recorder against an API server of the test's own on loopback."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes import client

from hack.demo.cluster import ClusterError, LoadGenerator
from hack.demo.history import Applied, Journal, Outcome
from hack.demo.loadgen.answers import Cell, Window
from hack.demo.recorder import Recorder

WAIT_S = 10


def model_deployment(version: int) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "digits",
            "uid": "1",
            "generation": version,
            "resourceVersion": str(version),
        },
        "status": {"rollout": {"state": "Idle", "reason": f"Version{version}"}},
    }


def window(number: int) -> Window:
    cell = Cell("digits-a", "200", 1, 1, float(number), float(number), (5.0,))
    return Window(number, float(number), float(number), 1.0, 1, 0, (cell,))


class FakeApi:
    """Serves watches, each of which ends after what there is, and a load generator.

    Attributes:
        versions: States of the ModelDeployment.
        windows: What the load generator has.
        first: Oldest window that it still has.
        fail_next: Whether the next watch is refused, as by an API server that restarts.
        watched_from: The resourceVersion of each watch of ModelDeployments, None for the first.
        posted: Paths that were posted to, with their bodies.
    """

    def __init__(self) -> None:
        self.versions = [1]
        self.windows: list[Window] = []
        self.first = 0
        self.fail_next = False
        self.watched_from: list[str | None] = []
        self.posted: list[tuple[str, Any]] = []
        self.changed = threading.Condition()
        self._stopped = False
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.get(self)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                fake.posted.append((urlsplit(self.path).path.rpartition("/")[2], body))
                fake.answer(self, {})

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
                """Keeps the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def client(self) -> client.ApiClient:
        host = f"http://127.0.0.1:{self._server.server_port}"
        return client.ApiClient(client.Configuration(host=host))

    def stop(self) -> None:
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, version: int) -> None:
        with self.changed:
            self.versions.append(version)
            self.changed.notify_all()

    def answer(self, handler: BaseHTTPRequestHandler, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path.endswith("/stats"):
            since = int(query["since"])
            known = [w for w in self.windows if w.seq >= max(since, self.first)]
            following = known[-1].seq + 1 if known else since
            windows = [w.to_json() for w in known]
            self.answer(handler, {"first": self.first, "next": following, "windows": windows})
        elif self.fail_next:
            self.fail_next = False
            self.answer(handler, {"kind": "Status", "code": 503}, status=503)
        elif url.path.endswith("/modeldeployments"):
            self._watch(handler, query.get("resourceVersion"))
        else:
            self._quiet_watch(handler)

    def _watch(self, handler: BaseHTTPRequestHandler, since: str | None) -> None:
        self.watched_from.append(since)
        self._begin_stream(handler)
        with self.changed:
            self.changed.wait_for(lambda: self._stopped or self._newer(since), timeout=WAIT_S)
            newer = self._newer(since)
        for version in newer:
            event = {"type": "MODIFIED", "object": model_deployment(version)}
            line = json.dumps(event).encode() + b"\n"
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self._end_stream(handler)

    def _newer(self, since: str | None) -> list[int]:
        return [version for version in self.versions if version > int(since or 0)]

    def _quiet_watch(self, handler: BaseHTTPRequestHandler) -> None:
        self._begin_stream(handler)
        with self.changed:
            self.changed.wait_for(lambda: self._stopped, timeout=WAIT_S)
        self._end_stream(handler)

    def _begin_stream(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()

    def _end_stream(self, handler: BaseHTTPRequestHandler) -> None:
        # The recorder hangs up at its end.
        with contextlib.suppress(OSError):
            handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.stop()


@pytest.fixture
def recorder(api: FakeApi) -> Iterator[Recorder]:
    connection = api.client()
    load = LoadGenerator(connection, "vision")
    with Recorder(
        connection, namespace="vision", name="digits", journal=Journal(), load=load
    ) as running:
        yield running
    connection.rest_client.pool_manager.clear()


def reasons(recorder: Recorder) -> list[str]:
    return [seen.status.rollout.reason for seen in recorder.history().statuses]


def test_each_state_is_recorded_once_over_many_connections(
    api: FakeApi, recorder: Recorder
) -> None:
    assert recorder.wait_for(lambda h: len(h.statuses) == 1, timeout_s=WAIT_S)
    api.add(2)
    assert recorder.wait_for(lambda h: len(h.statuses) == 2, timeout_s=WAIT_S)
    api.add(3)

    assert recorder.wait_for(lambda h: len(h.statuses) >= 3, timeout_s=WAIT_S)
    assert reasons(recorder) == ["Version1", "Version2", "Version3"]
    assert api.watched_from[:3] == [None, "1", "2"]


def test_a_watch_that_is_refused_is_tried_again(api: FakeApi) -> None:
    api.fail_next = True
    connection = api.client()
    with Recorder(connection, namespace="vision", name="digits", journal=Journal()) as recorder:
        assert recorder.wait_for(lambda h: len(h.statuses) == 1, timeout_s=WAIT_S)
    connection.rest_client.pool_manager.clear()


def test_answers_are_read_while_they_come(api: FakeApi, recorder: Recorder) -> None:
    api.windows = [window(0)]
    assert recorder.wait_for(lambda h: len(h.windows) == 1, timeout_s=WAIT_S)
    api.windows.append(window(1))

    assert recorder.wait_for(lambda h: len(h.windows) == 2, timeout_s=WAIT_S)
    assert recorder.history().windows == (window(0), window(1))


def test_stopping_the_load_reads_what_is_left(api: FakeApi, recorder: Recorder) -> None:
    recorder.start_load(100)
    api.windows = [window(0), window(1)]
    recorder.stop_load()

    history = recorder.history()

    assert api.posted == [("start", {"rate": 100}), ("stop", None)]
    assert [load.rate for load in history.loads] == [100, 0]
    assert len(history.windows) == 2


def test_lost_answers_are_an_error_and_no_gap(api: FakeApi, recorder: Recorder) -> None:
    api.windows, api.first = [window(7)], 7

    with pytest.raises(ClusterError, match="lost answers"):
        recorder.wait_for(lambda _: False, timeout_s=WAIT_S)


def test_waiting_ends_in_time_when_nothing_happens(recorder: Recorder) -> None:
    assert not recorder.wait_for(lambda _: False, timeout_s=0.1)


def test_what_was_applied_is_recorded(recorder: Recorder) -> None:
    applied = Applied(1.0, 1, "a model", "sha256:0", Outcome.PROMOTED)

    recorder.applied(applied)

    assert recorder.history().applied == (applied,)


def test_a_load_generator_that_refuses_says_why(api: FakeApi) -> None:
    connection = api.client()
    api.fail_next = True

    with pytest.raises(client.ApiException, match="503"):
        LoadGenerator(connection, "vision")._call("GET", "healthz")
    connection.rest_client.pool_manager.clear()
