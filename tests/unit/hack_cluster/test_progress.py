"""What a user sees of a run that takes minutes, and what his terminal is like after it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hack.cluster import cli
from hack.cluster.cluster import Cluster
from hack.cluster.process import ClusterError, wait_for
from hack.cluster.progress import Progress

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """What was printed so far, on a terminal or in a file."""

    def __init__(self, *, terminal: bool) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, force_terminal=terminal, width=200, _environ={"TERM": "xterm"}
        )

    @property
    def text(self) -> str:
        return self._file.getvalue()


def test_running_stages_are_told_with_their_times() -> None:
    clock = Clock()
    progress = Progress(Screen(terminal=False).console, clock=clock)
    progress.stage("build kube-node")
    clock.now += 200
    progress.stage("build [engine]")
    clock.now += 43

    assert progress.running() == "build kube-node (243 s), build [engine] (43 s)"

    progress.done("build kube-node", 243)
    progress.close()
    assert progress.running() == ""


def test_a_terminal_shows_how_long_a_stage_runs_already() -> None:
    screen, clock = Screen(terminal=True), Clock()
    progress = Progress(screen.console, clock=clock)

    progress.stage("build kube-node")
    clock.now += 243

    assert wait_for(lambda: "build kube-node (243 s)" in screen.text, timeout_s=10)
    progress.close()


def test_a_file_gets_a_line_about_a_long_stage_from_time_to_time() -> None:
    screen, clock = Screen(terminal=False), Clock()
    progress = Progress(screen.console, clock=clock, remind_s=0.01)

    progress.stage("build kube-node")
    clock.now += 30

    assert wait_for(lambda: "still at build kube-node (30 s)\n" in screen.text, timeout_s=10)
    progress.done("build kube-node", 30.04)
    progress.close()
    lines = screen.text.splitlines()
    assert lines[0] == "  ...  build kube-node"
    assert lines[-1] == " 30.0 s  build kube-node"


@pytest.mark.parametrize("error", [ClusterError("no compiler"), KeyboardInterrupt()], ids=repr)
def test_a_build_that_fails_gives_the_terminal_its_cursor_back(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    screen = Screen(terminal=True)
    monkeypatch.setattr(cli, "Progress", lambda: Progress(screen.console))

    def fail(cluster: Cluster) -> None:
        cluster.progress.stage("build kube-node")
        raise error

    monkeypatch.setattr(Cluster, "build", fail)

    assert cli.main(["build"]) != 0

    assert HIDE_CURSOR in screen.text
    assert screen.text.rindex(SHOW_CURSOR) > screen.text.rindex(HIDE_CURSOR)
