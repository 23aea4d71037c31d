"""Which images can be loaded into a cluster, and what is said of all others."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hack.cluster.archive import ImageConfig, image_ids, write_image, write_layer
from hack.cluster.cluster import Cluster
from hack.cluster.engine import PrivateEngine
from hack.cluster.layout import Layout
from hack.cluster.process import ClusterError
from hack.cluster.progress import Progress
from hack.cluster.state import PREFERRED, Process, State

NGINX = "nginx:1.29"

# A Docker engine with one image and one node. What it is asked for is noted; with OLD it is one
# that knows no platforms.
DOCKER = f"""#!/bin/sh
echo "$*" >> "$FOLDER/calls"
case "$*" in
info) ;;
"image inspect"*{NGINX}) echo linux/amd64 ;;
"save --output "*"--platform linux/amd64 {NGINX}") [ -z "$OLD" ] && cp "$FOLDER/nginx.tar" "$3" ;;
"save --output "*" {NGINX}") cp "$FOLDER/nginx.tar" "$3" ;;
ps*) echo "x-control-plane running" ;;
"exec x-control-plane crictl images"*) echo '{{"images": []}}' ;;
"exec x-control-plane ctr"*) cp "$FOLDER/cache/cluster-x/inbox/"*.tar "$FOLDER/imported.tar" ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster in the user's own Docker engine."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    write_layer(tmp_path / "layer.tar", texts={"/hello": "world"})
    write_image(tmp_path / "nginx.tar", NGINX, [tmp_path / "layer.tar"], ImageConfig())
    layout = Layout(tmp_path / "cache", "x")
    layout.inbox.mkdir(parents=True)
    State(PREFERRED, sandbox=None).save(layout.state_file)
    return Cluster(layout, Progress(Console(file=io.StringIO())))


@pytest.mark.parametrize("old", ["", "yes"], ids=["Docker 28", "an older Docker"])
def test_an_image_of_dockers_is_loaded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, old: str
) -> None:
    monkeypatch.setenv("OLD", old)

    cluster.load(NGINX)

    assert set(image_ids(tmp_path / "imported.tar")) == {NGINX}
    left = [path.name for path in cluster.layout.state.rglob("*.tar")]
    assert left == []


def test_an_archive_is_loaded_by_its_path(tmp_path: Path, cluster: Cluster) -> None:
    cluster.load(str(tmp_path / "nginx.tar"))

    assert (tmp_path / "imported.tar").read_bytes() == (tmp_path / "nginx.tar").read_bytes()


def test_an_image_that_docker_does_not_have_is_named_with_a_way_to_get_it(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"nor one that Docker has: `docker pull nope:1`"):
        cluster.load("nope:1")


def test_a_private_engine_loads_files_and_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    State(PREFERRED, sandbox=Process(1, 1)).save(cluster.layout.state_file)
    monkeypatch.setattr(PrivateEngine, "is_running", lambda _: True)
    monkeypatch.setattr(PrivateEngine, "env", {})
    monkeypatch.setattr(PrivateEngine, "image", "node")

    with pytest.raises(ClusterError, match=r"private engine has no other.*`docker save"):
        cluster.load(NGINX)

    assert "save" not in (tmp_path / "calls").read_text()
