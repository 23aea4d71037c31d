"""Which engine a cluster gets, and that it keeps it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from hack.cluster.cluster import Cluster
from hack.cluster.engine import PrivateEngine, SystemEngine, choose
from hack.cluster.layout import Layout
from hack.cluster.parts import Store
from hack.cluster.process import ClusterError, Runner
from hack.cluster.progress import Progress
from hack.cluster.state import PREFERRED, Process, State

if TYPE_CHECKING:
    from pathlib import Path

# A docker that is there and has the node image, one that answers but cannot get it, and one that
# gets it from a registry.
WORKING = "#!/bin/sh\nexit 0\n"
WITHOUT_REGISTRY = '#!/bin/sh\n[ "$1" = info ]\n'
WITHOUT_IMAGE = '#!/bin/sh\necho "$1" >> "${0%/*}/calls"\n[ "$1" != image ]\n'


def install(path: Path, docker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir()
    (path / "docker").write_text(docker)
    (path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")


def chosen(layout: Layout) -> type:
    run = Runner(layout.cache / "log")
    return type(choose(layout, Store(layout.parts, ()), run, Progress(Console(file=io.StringIO()))))


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


def test_the_node_image_is_got_for_a_new_cluster_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", WITHOUT_IMAGE, monkeypatch)
    layout, said = Layout(tmp_path), io.StringIO()
    run = Runner(layout.cache / "log")

    chosen = choose(layout, Store(layout.parts, ()), run, Progress(Console(file=said)))

    assert type(chosen) is SystemEngine
    assert "pull" in (tmp_path / "bin" / "calls").read_text().split()
    assert said.getvalue().startswith("  ...  ask Docker's registry for the node image")


def test_looking_at_a_cluster_and_removing_it_asks_no_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", WITHOUT_IMAGE, monkeypatch)
    # NB: not the default name: `down` removes the machine's control groups of that name
    layout = Layout(tmp_path, "none")
    cluster = Cluster(layout, Progress(Console(file=io.StringIO())))

    assert not cluster.status()
    cluster.down(purge=False)
    with pytest.raises(ClusterError, match="the cluster is down"):
        cluster.running()

    assert "pull" not in (tmp_path / "bin" / "calls").read_text().split()


def test_an_engine_without_a_cluster_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", WORKING, monkeypatch)
    said = io.StringIO()
    cluster = Cluster(Layout(tmp_path), Progress(Console(file=said)))

    assert not cluster.status()
    with pytest.raises(ClusterError, match="the cluster is down"):
        cluster.running()

    assert said.getvalue() == "The cluster is down.\n"


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


@pytest.mark.parametrize("lives", [False, True])
def test_the_control_groups_of_another_caches_cluster_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    removed: list[str] = []
    monkeypatch.setattr("hack.cluster.engine._KILL_S", 0)
    monkeypatch.setattr("hack.cluster.host.has_processes", lambda _: lives)
    monkeypatch.setattr("hack.cluster.host.remove_cgroups", removed.append)
    layout = Layout(tmp_path, "none")

    PrivateEngine(layout, Store(layout.parts, ()), Runner(tmp_path / "log")).stop()

    assert removed == ([] if lives else ["kind-none"])


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
