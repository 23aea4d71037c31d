"""What the commands of the checkout do with a user's machine: make, hack/test.sh."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.cluster.layout import REPOSITORY

USERS_OWN = "/home/somebody/.kube/config"
OURS = "/cache/model-operator/cluster/kubeconfig"

# Every program that a recipe runs is one of these: it notes how it was called.
NOTE = '#!/bin/sh\necho "$KUBECONFIG $(basename "$0") $*" >> "$CALLS"\n'
PYTHON = NOTE + f'case "$*" in "-m hack.cluster kubeconfig") echo {OURS};; esac\n'


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout whose Makefile and scripts are real, and all else that they run is not."""

    root: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user does who works on a cluster of their own."""
        env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
        env |= {
            "KUBECONFIG": USERS_OWN,
            "XDG_CACHE_HOME": "/cache",
            "CALLS": str(self.root / "calls"),
        }
        return subprocess.run(
            command,
            cwd=self.root,
            env=env,
            check=False,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def replace(self, name: str, script: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    @property
    def calls(self) -> list[tuple[str, str]]:
        """What ran: the KUBECONFIG that it saw, and its name with its arguments."""
        lines = (self.root / "calls").read_text().splitlines()
        return [(kubeconfig, call) for kubeconfig, _, call in (s.partition(" ") for s in lines)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    for name in ("Makefile", "hack/test.sh", ".ci/run"):
        made.replace(name, (REPOSITORY / name).read_text())
    for name in ("hack/setup.sh", "hack/lock.sh"):
        made.replace(name, NOTE)
    for name in ("ruff", "lint-imports", "mypy"):
        made.replace(f".venv/bin/{name}", NOTE)
    made.replace(".venv/bin/python", PYTHON)
    return made


@pytest.mark.parametrize(
    ("command", "last"),
    [
        (("make", "demo"), "python -m hack.demo"),
        (("make", "test"), "python -m pytest -m not full"),
        (("make", "test-full"), "python hack/keep_full_result.py"),
        (("make", "test-e2e"), "python -m pytest tests/e2e"),
        (("make", "bench"), "python -m benchmarks"),
        (("hack/test.sh",), "python -m pytest -m not full"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_only_our_own_cluster_is_touched_whatever_the_environment_says(
    checkout: Checkout, command: tuple[str, ...], last: str
) -> None:
    done = checkout.run(*command)

    assert done.returncode == 0, done.stdout
    # all but the question where our own cluster's credentials are
    calls = [call for call in checkout.calls if call[1] != "python -m hack.cluster kubeconfig"]
    assert any(call.startswith(last) for _, call in calls)
    assert {kubeconfig for kubeconfig, _ in calls} == {OURS}


SUMMARY = "= 1 failed, 2 passed in 3.04s ="


@pytest.mark.parametrize(
    ("printed", "code", "last"),
    [
        (f"{SUMMARY}", 1, SUMMARY),
        (f"{SUMMARY}\n== 2 failed, 1 error in 1834.12s (0:30:34) ==\nnoise", 1, "== 2 failed, "),
        ("= 3 passed in 1.00s =", 0, "= 3 passed in 1.00s ="),
        ("interrupted", 2, "make: *** "),
    ],
)
def test_ci_ends_with_pytests_summary_and_its_code(
    checkout: Checkout, printed: str, code: int, last: str
) -> None:
    checkout.replace(
        ".venv/bin/python",
        PYTHON + f'case "$*" in "-m pytest"*) echo "{printed}"; exit {code};; esac\n',
    )

    done = checkout.run(".ci/run")

    assert bool(done.returncode) is bool(code)
    assert done.stdout.splitlines()[-1].startswith(last)


def test_ci_shows_no_summary_of_an_earlier_run(checkout: Checkout) -> None:
    checkout.replace("build/tests.log", SUMMARY)
    checkout.replace(".venv/bin/ruff", "#!/bin/sh\nexit 1\n")

    done = checkout.run(".ci/run")

    assert done.returncode != 0
    assert SUMMARY not in done.stdout
