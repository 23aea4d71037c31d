import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from model_server.digest import digest_of
from tests.unit.server import onnx_models
from tests.unit.server.serving import INFER


def command(path: Path, **flags: str) -> list[str]:
    settings = {
        "model": path.as_uri(),
        "digest": digest_of(path) if path.exists() else "sha256:" + "0" * 64,
        "name": "digits",
        "revision": "digits-1",
        "host": "127.0.0.1",
        "http-port": "0",
        "metrics-port": "0",
        "drain-delay": "0",
        "termination-message-path": str(path.parent / "termination-log"),
        **{name.replace("_", "-"): value for name, value in flags.items()},
    }
    flags_ = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "model_server", "serve", *flags_]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnx_models.write(onnx_models.lookup(), tmp_path / "model.onnx")


def corrupt(path: Path) -> dict[str, str]:
    path.write_bytes(b"garbage" * 100)
    return {}


def wrong_digest(_: Path) -> dict[str, str]:
    return {"digest": "sha256:" + "0" * 64}


def missing(path: Path) -> dict[str, str]:
    path.unlink()
    return {}


def newer_opset(path: Path) -> dict[str, str]:
    onnx_models.write(onnx_models.with_opset(onnx_models.lookup(), 99), path)
    return {}


def unknown_operator(path: Path) -> dict[str, str]:
    onnx_models.write(onnx_models.unknown_operator(), path)
    return {}


def other_answer(_: Path) -> dict[str, str]:
    golden = {
        "name": "the second entry",
        "inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [21.0]}],
    }
    return {"golden": json.dumps([golden])}


def no_golden_request(_: Path) -> dict[str, str]:
    return {"golden": "[1]"}


def malformed_uri(_: Path) -> dict[str, str]:
    return {"model": "http://[bad/m.onnx"}


@pytest.mark.parametrize(
    ("spoil", "code", "reason", "words"),
    [
        (wrong_digest, 3, "DigestMismatch", "sha256:"),
        (corrupt, 3, "InvalidModel", "not an ONNX model"),
        (newer_opset, 3, "UnsupportedModel", "opset 99"),
        (unknown_operator, 3, "UnsupportedModel", "NoSuchOperator"),
        (other_answer, 3, "GoldenRequestFailed", "'y' at [0]: expected 21.0, got 20.0"),
        (no_golden_request, 2, "InvalidConfig", "[0] must be an object"),
        (malformed_uri, 2, "InvalidConfig", "the model URI is not valid"),
        (missing, 4, "SourceUnavailable", "model.onnx"),
    ],
)
def test_a_failed_start_leaves_its_reason_behind(
    path: Path, spoil: Callable[[Path], dict[str, str]], code: int, reason: str, words: str
) -> None:
    flags = spoil(path)

    process = subprocess.run(
        command(path, **flags), capture_output=True, text=True, timeout=60, check=False
    )

    assert process.returncode == code, process.stderr
    lines = (path.parent / "termination-log").read_text().splitlines()
    assert len(lines) == 1
    message = json.loads(lines[0])
    assert message["reason"] == reason
    assert words in message["message"]
    assert message["message"] in [json.loads(line)["msg"] for line in process.stderr.splitlines()]


def test_a_bug_leaves_its_reason_behind_too(path: Path) -> None:
    with_a_bug = (
        "import sys, model_server.__main__, model_server.lifecycle\n"
        "model_server.lifecycle.load_model = lambda *_: 1 / 0\n"
        "sys.exit(model_server.__main__.main(sys.argv[1:]))"
    )

    process = subprocess.run(
        [sys.executable, "-c", with_a_bug, *command(path)[3:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert process.returncode == 1, process.stderr
    message = json.loads((path.parent / "termination-log").read_text())
    assert message["reason"] == "InternalError"
    assert "ZeroDivisionError: division by zero" in message["message"]
    last = json.loads(process.stderr.splitlines()[-1])
    assert last["msg"] == message["message"]
    assert "Traceback" in last["error"]


def test_a_model_that_is_too_large_says_so(path: Path) -> None:
    onnx_models.write(onnx_models.large_when_run(), path)
    limited = f"ulimit -v {8 * 1024 * 1024}; exec {shlex.join(command(path))}"

    process = subprocess.run(
        ["/bin/sh", "-c", limited], capture_output=True, text=True, timeout=60, check=False
    )

    assert process.returncode == 3, process.stderr
    message = json.loads((path.parent / "termination-log").read_text())
    assert message["reason"] == "UnsupportedModel"
    assert "raise its memory limit" in message["message"]


def test_wrong_flags_end_with_2_and_a_message(path: Path) -> None:
    env = {
        **os.environ,
        "MODEL_SERVER_TERMINATION_MESSAGE_PATH": str(path.parent / "termination-log"),
    }

    process = subprocess.run(
        command(path, drain_timeout="soon"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )

    assert process.returncode == 2
    message = json.loads((path.parent / "termination-log").read_text())
    assert message["reason"] == "InvalidConfig"
    assert "'soon' is not a duration" in message["message"]


def test_sigterm_ends_a_serving_process_with_0(path: Path) -> None:
    with subprocess.Popen(command(path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        entries = (json.loads(line) for line in process.stderr)
        port = next(entry["http_port"] for entry in entries if entry["msg"] == "listening")
        assert any(entry["msg"] == "ready" for entry in entries)
        tensor = {"name": "i", "datatype": "INT64", "shape": [1], "data": [1]}
        answer = httpx.post(f"http://127.0.0.1:{port}{INFER}", json={"inputs": [tensor]})

        process.send_signal(signal.SIGTERM)

        assert [entry["msg"] for entry in entries] == ["draining", "stopped"]
        assert process.wait(timeout=60) == 0
    assert answer.status_code == 200


def test_the_shortest_command_line_serves(path: Path) -> None:
    digest = digest_of(path)
    flags = (
        f"--model {path.as_uri()} --digest {digest} --name digits --http-port 0 --metrics-port 0"
    )
    command_ = [sys.executable, "-m", "model_server", "serve", *flags.split()]
    with subprocess.Popen(command_, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        entries = (json.loads(line) for line in process.stderr)
        port = next(entry["http_port"] for entry in entries if entry["msg"] == "listening")
        assert any(entry["msg"] == "ready" for entry in entries)

        metadata = httpx.get(f"http://127.0.0.1:{port}/v2/models/digits").json()

        process.kill()
    assert metadata["versions"] == [f"digits-{digest.removeprefix('sha256:')[:10]}"]


def test_sigterm_does_not_wait_for_a_download(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_host:
        uri = f"http://127.0.0.1:{silent_host.getsockname()[1]}/model.onnx"
        flags = {"model": uri, "model_dir": str(path.parent)}
        with subprocess.Popen(command(path, **flags), stderr=subprocess.PIPE) as process:
            download, _ = silent_host.accept()
            with download:
                process.send_signal(signal.SIGTERM)

                assert process.wait(timeout=60) == 0


def test_digest_prints_the_digest(path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "model_server", "digest", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert process.stdout == digest_of(path) + "\n"
    assert process.returncode == 0


def test_digest_of_nothing_is_an_error(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "model_server", "digest", str(tmp_path / "absent")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert process.returncode == 2
    assert "absent" in process.stderr
