"""What hack/setup.sh finds missing on a machine, and what it does about it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.cluster.layout import REPOSITORY

ON_DEBIAN = Path("/etc/debian_version").exists()

# What every machine has.
_BASE = ("basename", "bash", "cat", "cp", "dirname", "env", "mkdir", "sh", "sha256sum")
_NOTE = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'
_NO_VENV = _NOTE + 'case "$*" in *ensurepip*) exit 1;; esac\n'
# The two commands that bring in uv: they leave what they would.
_PYTHON = _NOTE + (
    'case "$*" in "-m venv "*) mkdir -p "$3/bin"; cp "$NOTE" "$3/bin/pip"; cp "$NOTE" "$3/bin/uv";;'
    " esac\n"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that has only the programs that a test gives it."""

    root: Path

    def install(self, name: str, script: str = _NOTE) -> None:
        path = self.root / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def set_up(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (self.root / "checkout" / "hack" / "setup.sh",),
            env={
                "PATH": str(self.root / "bin"),
                "HOME": str(self.root),
                "CALLS": str(self.root / "calls"),
                "NOTE": str(self.root / "bin" / "git"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    checkout = tmp_path / "checkout"
    for name in ("hack/setup.sh", "requirements/dev.txt", "requirements/uv.txt"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, checkout / name)
    for member in ("operator", "inference-server"):
        (checkout / member).mkdir()
        (checkout / member / "pyproject.toml").touch()
    (checkout / ".venv").mkdir()
    (tmp_path / "bin").mkdir()
    for name in _BASE:
        program = shutil.which(name)
        assert program, name
        (tmp_path / "bin" / name).symlink_to(program)
    made = Machine(tmp_path)
    for name in ("git", "make", "apt-get"):
        made.install(name)
    made.install("python3", _PYTHON)
    made.install("id", "#!/bin/sh\necho 1000\n")
    return made


def test_a_machine_without_what_makes_environments_is_told_so(machine: Machine) -> None:
    machine.install("python3", _NO_VENV)

    done = machine.set_up()

    assert done.returncode == 1
    assert done.stderr == "setup: install python3-venv first\n"


@pytest.mark.skipif(not ON_DEBIAN, reason="packages are installed on Debian only")
def test_root_on_debian_gets_what_makes_environments(machine: Machine) -> None:
    machine.install("id", "#!/bin/sh\necho 0\n")
    machine.install("python3", _NO_VENV)
    machine.install("whole-python3", _PYTHON)
    folder = machine.root / "bin"
    machine.install("apt-get", f"{_NOTE}cp {folder}/whole-python3 {folder}/python3\n")

    done = machine.set_up()

    assert done.returncode == 0, done.stderr
    assert "apt-get install -y -qq --no-install-recommends python3-venv" in machine.calls
    assert any(call.startswith("uv pip sync") for call in machine.calls)


def test_a_machine_with_uv_needs_no_environments_of_pythons_own(machine: Machine) -> None:
    machine.install("python3", _NO_VENV)
    machine.install("uv")

    done = machine.set_up()

    assert done.returncode == 0, done.stderr
    assert any(call.startswith("uv pip sync") for call in machine.calls)


def test_uv_is_installed_where_it_is_missing_and_only_once(machine: Machine) -> None:
    first = machine.set_up()
    (machine.root / "checkout/.venv/.installed").unlink()
    second = machine.set_up()

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "installing uv" in first.stdout
    assert "installing uv" not in second.stdout
