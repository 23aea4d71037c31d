"""Which engine a cluster gets, and that it keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hack.cluster.engine import PrivateEngine, SystemEngine, choose
from hack.cluster.layout import Layout
from hack.cluster.parts import Store
from hack.cluster.process import ClusterError, Runner
from hack.cluster.state import PREFERRED, Process, State

if TYPE_CHECKING:
    from pathlib import Path

# A docker that is there and has the node image, and one that answers but cannot get it.
WORKING = "#!/bin/sh\nexit 0\n"
WITHOUT_REGISTRY = '#!/bin/sh\n[ "$1" = info ]\n'


def install(path: Path, docker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir()
    (path / "docker").write_text(docker)
    (path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")


def chosen(layout: Layout) -> type:
    run = Runner(layout.cache / "log")
    return type(choose(layout, Store(layout.parts, ()), run))


def test_an_engine_that_has_the_node_image_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", WORKING, monkeypatch)

    assert chosen(Layout(tmp_path)) is SystemEngine


def test_an_engine_without_a_registry_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", WITHOUT_REGISTRY, monkeypatch)

    assert chosen(Layout(tmp_path)) is PrivateEngine


def test_a_machine_without_docker_gets_a_private_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert chosen(Layout(tmp_path)) is PrivateEngine


@pytest.mark.parametrize(
    ("sandbox", "engine"), [(Process(1, 1), PrivateEngine), (None, SystemEngine)]
)
def test_a_cluster_keeps_the_engine_that_it_was_started_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Process | None, engine: type
) -> None:
    install(tmp_path / "bin", WORKING, monkeypatch)
    layout = Layout(tmp_path)
    layout.state.mkdir(parents=True)

    State(PREFERRED, sandbox).save(layout.state_file)

    assert chosen(layout) is engine


def test_a_failed_command_is_reported_with_its_log_and_its_last_words(tmp_path: Path) -> None:
    run = Runner(tmp_path / "logs" / "x.log")

    with pytest.raises(ClusterError) as failure:
        run.run("sh", "-c", "echo first; echo the reason >&2; exit 3")

    assert str(tmp_path / "logs" / "x.log") in str(failure.value)
    assert "(3)" in str(failure.value)
    assert str(failure.value).endswith("the reason")


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        Runner(tmp_path / "log").run("no-such-program")


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="took more than 0 s"):
        Runner(tmp_path / "log").output("sleep", "60", timeout_s=0.1)
