"""The demo as a user runs it, and the proof that it can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.demo.cluster import install_operator
from hack.demo.faults import blows, bound
from hack.demo.history import FaultKind, read_history
from tests.e2e.history_invariants import check
from tests.e2e.witness import events_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


def demo(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hack.demo", "--output", str(output), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def hold_against_invariants(output: Path) -> None:
    history = read_history(output / "history.jsonl")
    storm = blows(history)
    check(
        history,
        told=events_of("demo"),
        disturbed=[(blow.began, blow.mended or history.end) for blow in storm],
        lost=sum(bound(history, blow) for blow in storm),
    )


@pytest.fixture
def healthy_operator_afterwards() -> Iterator[None]:
    yield
    install_operator()


def test_the_demo_shows_what_it_promises(operator: None, tmp_path: Path) -> None:
    del operator
    done = demo(tmp_path, "--fast", "--only", "good,bad", "--no-install")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert (tmp_path / "rollout.png").stat().st_size > 10_000
    page = (tmp_path / "rollout.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", ""), "the page is self-contained"
    hold_against_invariants(tmp_path)


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_the_whole_demo_with_its_storm_shows_what_it_promises(
    operator: None, tmp_path: Path
) -> None:
    del operator
    done = demo(tmp_path, "--no-install")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    history = read_history(tmp_path / "history.jsonl")
    assert [applied.version for applied in history.applied] == [1, 2, 3, 4, 5, 6, 7]
    assert {blow.kind for blow in blows(history)} >= {
        FaultKind.OPERATOR_KILLED,
        FaultKind.PROMETHEUS_STOPPED,
    }
    assert len(blows(history)) == 3
    hold_against_invariants(tmp_path)


@pytest.mark.usefixtures("healthy_operator_afterwards")
def test_the_demo_fails_when_the_operator_does_not_roll_back(
    operator: None, tmp_path: Path
) -> None:
    del operator
    done = demo(tmp_path, "--fast", "--only", "bad", "--disable-rollback")
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    assert "version 3 is Unfinished, expected RolledBack" in done.stdout
