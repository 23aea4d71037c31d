"""What an image is built from, and what the build may see of the machine."""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

import pytest

from hack.cluster.layout import REPOSITORY
from hack.images import pipconfig
from hack.images.build import IMAGES, Image, with_buildah
from hack.images.dockerfile import copied, sources

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILE = """\
ARG BASE=python
FROM ${BASE} AS build
# COPY commented /out
COPY requirements/a.txt \\
     requirements/b.txt /build/
COPY --chown=1:1 src /src
ADD ["with space", "/there"]
RUN echo COPY not-this
FROM ${BASE}
COPY --from=build /opt /opt
COPY --from=build --chown=1:1 /x /x
copy src /again
"""


def test_only_what_comes_from_the_context_counts_once() -> None:
    assert copied(DOCKERFILE) == (
        "requirements/a.txt",
        "requirements/b.txt",
        "src",
        "with space",
    )


def test_patterns_are_followed_and_missing_sources_are_named(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text("")
    dockerfile = tmp_path / "Dockerfile"

    dockerfile.write_text("FROM x\nCOPY *.txt /\n")
    assert [path.name for path in sources(dockerfile, tmp_path)] == ["Dockerfile", "a.txt", "b.txt"]

    dockerfile.write_text("FROM x\nCOPY . /\n")
    assert sources(dockerfile, tmp_path) == (dockerfile, tmp_path)

    dockerfile.write_text("FROM x\nCOPY gone /\n")
    with pytest.raises(FileNotFoundError, match="copies gone"):
        sources(dockerfile, tmp_path)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_image_takes_its_base_as_an_argument(image: Image) -> None:
    text = (REPOSITORY / image.dockerfile).read_text()

    assert text.startswith(("ARG BASE=", "#"))
    assert "ARG BASE=" in text
    assert "FROM ${BASE}" in text


def test_an_image_is_keyed_by_the_sources_of_its_dockerfile(tmp_path: Path) -> None:
    [server] = [image for image in IMAGES if image.name == "model-server"]

    part = with_buildah(server, tmp_path)

    assert REPOSITORY / "inference-server" / "Dockerfile" in part.sources
    assert REPOSITORY / "inference-server" / "src" in part.sources


def test_the_environment_overrides_pips_files_and_local_paths_stay_out(tmp_path: Path) -> None:
    system = tmp_path / "pip.conf"
    system.write_text("[global]\nindex-url = https://files.example\ntimeout = 5\ncache-dir = /c\n")
    environ = {"PIP_INDEX_URL": "https://env.example", "PIP_CACHE_DIR": "/d", "PATH": "/bin"}

    settings = pipconfig.read(environ, tmp_path, system)

    assert settings == {"index-url": "https://env.example", "timeout": "5"}


def test_settings_survive_being_written(tmp_path: Path) -> None:
    settings = {"extra-index-url": "https://a.example/100%25/simple", "timeout": "5"}
    path = tmp_path / "pip.conf"

    path.write_text(pipconfig.render(settings))

    parser = configparser.RawConfigParser()
    parser.read(path)
    assert dict(parser["global"]) == settings


def test_files_that_the_settings_name_are_found(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.crt"
    certificate.write_text("")
    settings = {
        "cert": str(certificate),
        "find-links": f"https://x.example {tmp_path}",
        "proxy": "/no/such/file",
    }

    assert list(pipconfig.named_paths(settings)) == [certificate, tmp_path]
