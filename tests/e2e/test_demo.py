"""The demo as a user runs it, and the proof that it can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.demo.cluster import install_operator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


def demo(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hack.demo", "--fast", "--output", str(output), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def healthy_operator_afterwards() -> Iterator[None]:
    yield
    install_operator()


def test_the_demo_shows_what_it_promises(operator: None, tmp_path: Path) -> None:
    del operator
    done = demo(tmp_path, "--no-install")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert (tmp_path / "rollout.png").stat().st_size > 10_000
    page = (tmp_path / "rollout.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", ""), "the page is self-contained"


@pytest.mark.usefixtures("healthy_operator_afterwards")
def test_the_demo_fails_when_the_operator_does_not_roll_back(
    operator: None, tmp_path: Path
) -> None:
    del operator
    done = demo(tmp_path, "--disable-rollback")
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    assert "version 3 is Unfinished, expected RolledBack" in done.stdout
