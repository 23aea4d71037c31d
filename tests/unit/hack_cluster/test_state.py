"""What is remembered of a cluster survives, and is never taken for another process's."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from hack.cluster import state
from hack.cluster.state import Ports, Process, State

if TYPE_CHECKING:
    from pathlib import Path

PORTS = Ports(api=1, gateway=2, prometheus=3)


@pytest.mark.parametrize("sandbox", [None, Process(12, 345)])
def test_a_state_is_read_as_it_was_written(tmp_path: Path, sandbox: Process | None) -> None:
    path = tmp_path / "state.json"

    State(PORTS, sandbox).save(path)

    assert state.load(path) == State(PORTS, sandbox)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"ports": {"api": 1}, "sandbox": null}',
        '{"ports": {"api": 1, "gateway": 2, "prometheus": 3}, "sandbox": {"pid": 1}}',
    ],
)
def test_a_broken_state_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)

    assert state.load(path) is None


def test_no_state_is_none(tmp_path: Path) -> None:
    assert state.load(tmp_path / "state.json") is None


def stat_line(pid: int, name: str, status: str, start: int) -> str:
    fields = [status, *(str(n) for n in range(4, 22)), str(start), "0"]
    return f"{pid} ({name}) {' '.join(fields)}\n"


def test_a_process_is_told_by_when_it_started_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    folder.mkdir()
    (folder / "stat").write_text(stat_line(77, "a) R 1 (b", "S", 4711))

    assert state.find_process(77, tmp_path) == Process(77, 4711)
    assert state.find_process(78, tmp_path) is None


def test_a_zombie_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    folder.mkdir()
    (folder / "stat").write_text(stat_line(77, "python", "Z", 4711))

    assert state.find_process(77, tmp_path) is None


def test_another_process_with_the_same_id_is_not_the_one_that_was_meant() -> None:
    me = state.find_process(os.getpid())

    assert me is not None
    assert me.is_alive()
    assert not Process(me.pid, me.start_time - 1).is_alive()


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        chosen = state.choose_ports(Ports(api=port, gateway=port, prometheus=port))

        assert port not in {chosen.api, chosen.gateway, chosen.prometheus}
