"""The harness itself: it starts quickly, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.apiserver.control_plane import REPOSITORY, ControlPlane, tool

_END_S = 10.0
_POLL_S = 0.05
_START_AND_WAIT = """
import sys, time
from pathlib import Path
from tests.apiserver.control_plane import ControlPlane
with ControlPlane(Path(sys.argv[1]), crds=False) as running:
    print(*running.pids, flush=True)
    time.sleep(60)
"""


def test_a_binary_that_is_not_built_is_an_error_that_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODEL_OPERATOR_TOOLS", str(tmp_path))

    with pytest.raises(FileNotFoundError, match="`make test-apiserver` builds it"):
        tool("etcd")


def test_its_processes_end_with_the_block(tmp_path: Path) -> None:
    with ControlPlane(tmp_path, crds=False) as running:
        pids = running.pids
        assert len(pids) == 2
        assert all(_is_running(pid) for pid in pids)

    assert not any(_is_running(pid) for pid in pids)


def test_its_processes_end_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _START_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 2
        assert all(_is_running(pid) for pid in pids)

        run.send_signal(signal.SIGKILL)

        deadline = time.monotonic() + _END_S
        while any(_is_running(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(_POLL_S)


def test_a_process_that_cannot_start_is_named_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools, data = tmp_path / "tools", tmp_path / "data"
    tools.mkdir()
    data.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (tools / name).write_text("#!/bin/sh\necho no room left\nexit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("MODEL_OPERATOR_TOOLS", str(tools))

    with pytest.raises(RuntimeError, match="etcd ended: no room left"), ControlPlane(data):
        pass


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
