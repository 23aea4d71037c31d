import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_server.failures import Reason, StartupError
from model_server.storage import Fetcher, Limits

MODEL = bytes(range(256)) * 2000
DIGEST = "sha256:" + hashlib.sha256(MODEL).hexdigest()
OTHER_DIGEST = "sha256:" + "0" * 64

Handler = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class ModelHost:
    """An HTTP server that does as the test says, one entry of `script` for each request."""

    url: str = ""
    script: list[Handler] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def host() -> Iterator[ModelHost]:
    told = ModelHost()

    class ScriptedHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.ranges.append(self.headers["range"])
            told.script[min(len(told.ranges), len(told.script)) - 1](self)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), ScriptedHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/digits/model.onnx"
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


def whole(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("content-length", str(len(MODEL)))
    request.end_headers()
    request.wfile.write(MODEL)


def cut_off(request: BaseHTTPRequestHandler) -> None:
    """Send half of what was promised, then hang up."""
    request.send_response(200)
    request.send_header("content-length", str(len(MODEL)))
    request.end_headers()
    request.wfile.write(MODEL[: len(MODEL) // 2])


def rest(request: BaseHTTPRequestHandler) -> None:
    start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    if start >= len(MODEL):
        status(416)(request)
        return
    request.send_response(206)
    request.send_header("content-length", str(len(MODEL) - start))
    request.end_headers()
    request.wfile.write(MODEL[start:])


def status(code: int) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


def redirect(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("location", "/moved/model.onnx")
    request.send_header("content-length", "0")
    request.end_headers()


def fetcher(folder: Path, waits: list[float] | None = None, **limits: float) -> Fetcher:
    noted = [] if waits is None else waits
    return Fetcher(folder, Limits(**limits), sleep=noted.append)  # type: ignore[arg-type] # one of them counts bytes


def test_a_model_is_downloaded_and_verified(host: ModelHost, tmp_path: Path) -> None:
    host.script = [whole]

    path = fetcher(tmp_path).fetch(host.url, DIGEST)

    assert path.read_bytes() == MODEL
    assert list(tmp_path.iterdir()) == [path]


def test_a_verified_download_survives_a_restart(host: ModelHost, tmp_path: Path) -> None:
    host.script = [whole]
    first = fetcher(tmp_path).fetch(host.url, DIGEST)

    again = fetcher(tmp_path).fetch(host.url, DIGEST)

    assert again == first
    assert len(host.ranges) == 1


def test_a_damaged_earlier_download_is_replaced(host: ModelHost, tmp_path: Path) -> None:
    host.script = [whole]
    fetcher(tmp_path).fetch(host.url, DIGEST).write_bytes(b"damaged")

    assert fetcher(tmp_path).fetch(host.url, DIGEST).read_bytes() == MODEL


def test_an_interrupted_download_goes_on_where_it_stopped(host: ModelHost, tmp_path: Path) -> None:
    host.script = [cut_off, rest]
    waits: list[float] = []

    path = fetcher(tmp_path, waits).fetch(host.url, DIGEST)

    assert path.read_bytes() == MODEL
    assert host.ranges == [None, f"bytes={len(MODEL) // 2}-"]
    assert len(waits) == 1


def test_a_host_without_ranges_sends_everything_again(host: ModelHost, tmp_path: Path) -> None:
    host.script = [cut_off, whole]

    assert fetcher(tmp_path).fetch(host.url, DIGEST).read_bytes() == MODEL


def test_a_download_that_was_complete_before_a_crash_is_used(
    host: ModelHost, tmp_path: Path
) -> None:
    host.script = [rest]
    (tmp_path / f"{DIGEST.removeprefix('sha256:')}.partial").write_bytes(MODEL)

    assert fetcher(tmp_path).fetch(host.url, DIGEST).read_bytes() == MODEL


def test_the_first_part_of_an_older_file_is_not_kept(host: ModelHost, tmp_path: Path) -> None:
    host.script = [rest, whole]
    (tmp_path / f"{DIGEST.removeprefix('sha256:')}.partial").write_bytes(b"old" * 100)

    assert fetcher(tmp_path).fetch(host.url, DIGEST).read_bytes() == MODEL


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_failure_is_tried_again(host: ModelHost, tmp_path: Path, code: int) -> None:
    host.script = [status(code), status(code), whole]
    waits: list[float] = []

    assert fetcher(tmp_path, waits).fetch(host.url, DIGEST).read_bytes() == MODEL
    assert len(waits) == 2
    assert waits[0] < 0.51


def test_redirects_are_followed(host: ModelHost, tmp_path: Path) -> None:
    host.script = [redirect, whole]

    assert fetcher(tmp_path).fetch(host.url, DIGEST).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (404, "check the model URI and that"),
        (403, "pods may read it"),
        (400, "check the model URI"),
    ],
)
def test_a_refusal_is_not_tried_again(
    host: ModelHost, tmp_path: Path, code: int, advice: str
) -> None:
    host.script = [status(code)]

    with pytest.raises(StartupError, match=rf"answered {code}.*{advice}") as failure:
        fetcher(tmp_path).fetch(host.url, DIGEST)

    assert failure.value.reason is Reason.SOURCE_UNAVAILABLE
    assert failure.value.exit_code == 4
    assert len(host.ranges) == 1


def test_retries_end_with_the_time_for_them(host: ModelHost, tmp_path: Path) -> None:
    host.script = [status(503)]

    with pytest.raises(StartupError, match="503 Service Unavailable, after 1 attempts") as failure:
        fetcher(tmp_path, total_s=0.1).fetch(host.url, DIGEST)

    assert failure.value.reason is Reason.SOURCE_UNAVAILABLE


def test_another_model_behind_the_uri_is_refused_and_removed(
    host: ModelHost, tmp_path: Path
) -> None:
    host.script = [whole]

    with pytest.raises(StartupError, match=f"has digest {DIGEST}, not {OTHER_DIGEST}") as failure:
        fetcher(tmp_path).fetch(host.url, OTHER_DIGEST)

    assert failure.value.reason is Reason.DIGEST_MISMATCH
    assert failure.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_model_beyond_the_size_limit_is_not_downloaded(host: ModelHost, tmp_path: Path) -> None:
    host.script = [whole]

    with pytest.raises(StartupError, match="larger than 1000 bytes") as failure:
        fetcher(tmp_path, max_bytes=1000).fetch(host.url, DIGEST)

    assert failure.value.reason is Reason.UNSUPPORTED_MODEL
    assert list(tmp_path.iterdir()) == []


def test_a_full_or_forbidden_volume_is_named(host: ModelHost, tmp_path: Path) -> None:
    host.script = [whole]
    (tmp_path / "file").touch()

    with pytest.raises(StartupError, match="cannot be stored in") as failure:
        fetcher(tmp_path / "file").fetch(host.url, DIGEST)

    assert failure.value.reason is Reason.SOURCE_UNAVAILABLE


def test_an_unreachable_host_is_a_passing_failure(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="check that the pods reach") as failure:
        fetcher(tmp_path, total_s=0.1).fetch("http://127.0.0.1:9/model.onnx", DIGEST)

    assert failure.value.reason is Reason.SOURCE_UNAVAILABLE


def test_secrets_in_a_uri_are_not_repeated(tmp_path: Path) -> None:
    uri = "http://user:password@127.0.0.1:9/model.onnx?signature=secret"

    with pytest.raises(StartupError) as failure:
        fetcher(tmp_path, total_s=0.1).fetch(uri, DIGEST)

    assert "127.0.0.1:9/model.onnx" in failure.value.message
    assert "password" not in failure.value.message
    assert "secret" not in failure.value.message


def test_a_mounted_file_is_used_in_place(tmp_path: Path) -> None:
    file = tmp_path / "my model.onnx"
    file.write_bytes(MODEL)

    assert fetcher(tmp_path / "unused").fetch(file.as_uri(), DIGEST) == file
    assert not (tmp_path / "unused").exists()


def test_a_mounted_file_is_verified(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"something else")

    with pytest.raises(StartupError) as failure:
        fetcher(tmp_path).fetch(file.as_uri(), DIGEST)

    assert failure.value.reason is Reason.DIGEST_MISMATCH


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"there is no file .*absent\.onnx") as failure:
        fetcher(tmp_path).fetch((tmp_path / "absent.onnx").as_uri(), DIGEST)

    assert failure.value.reason is Reason.SOURCE_UNAVAILABLE


def test_an_unknown_scheme_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"'ftp'.*file, http and https") as failure:
        fetcher(tmp_path).fetch("ftp://127.0.0.1/model.onnx", DIGEST)

    assert failure.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize(
    "uri",
    [
        "http://[bad/m.onnx",
        "http://user:password@[::1/m.onnx",
        "http://user:password\uff03@models/m.onnx",
        "http://models:port/m.onnx",
        "http://models:99999/m.onnx",
        "http://models..example/m.onnx",
        "http://xn--/m.onnx",
        "http://mod\x01els/m.onnx",
        "file:///a%00b",
    ],
)
def test_a_uri_that_is_none_is_a_configuration_error(tmp_path: Path, uri: str) -> None:
    with pytest.raises(StartupError, match=r"model URI .*is not valid") as failure:
        fetcher(tmp_path).fetch(uri, DIGEST)

    assert failure.value.reason is Reason.INVALID_CONFIG
    assert "password" not in failure.value.message
