"""Building the images: with Docker where there is one, else with buildah on a Debian base."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.archive import ImageConfig, write_image
from hack.cluster.debian import IMAGE_PACKAGES, ensure_packages
from hack.cluster.layout import REPOSITORY, SOURCES
from hack.cluster.parts import Build, Lane, Part
from hack.cluster.process import Runner
from hack.images import pipconfig
from hack.images.dockerfile import sources

# Stands in for the Docker library's image of that name, which the Dockerfiles are based on.
BASE = "localhost/python:3.11-slim"
ARCHIVE = "image.tar"


@dataclass(frozen=True, slots=True)
class Image:
    """One of the project's images."""

    name: str
    dockerfile: str

    @property
    def reference(self) -> str:
        """The name that manifests use."""
        return f"localhost/{self.name}:dev"

    @property
    def part(self) -> str:
        """The name of the part that holds the archive."""
        return f"image-{self.name}"


IMAGES = (
    Image("model-server", "inference-server/Dockerfile"),
    Image("model-operator", "operator/Dockerfile"),
    Image("model-demo", "hack/demo/Dockerfile"),
)


def _build_base(build: Build) -> None:
    write_image(build.out / ARCHIVE, BASE, [build.needs["python-root"] / "root.tar"], ImageConfig())


BASE_PART = Part(
    name="python-base",
    lane=Lane.ASSEMBLY,
    replaces=True,
    build=_build_base,
    recipe=(BASE,),
    sources=(SOURCES / "archive.py",),
    needs=("python-root",),
)


def with_buildah(image: Image, storage: Path) -> Part:
    """Return the part that builds an image without a Docker engine.

    Raises:
        FileNotFoundError: the Dockerfile, or something that it copies, is missing.
    """

    def make(build: Build) -> None:
        ensure_packages(IMAGE_PACKAGES, build.run)
        base = build.needs[BASE_PART.name] / ARCHIVE
        run = Runner(build.run.log, {"TMPDIR": str(build.out)})  # layers do not fit every /tmp
        settings = pipconfig.read(os.environ, Path.home())
        with tempfile.TemporaryDirectory() as scratch:
            buildah = (
                # A build that is killed leaves its mounts: here they end with it, and what buildah
                # notes of them does too.
                *("unshare", "--mount", "buildah", "--storage-driver", "overlay"),
                *("--root", storage, "--runroot", Path(scratch) / "run"),
            )
            config = Path(scratch) / "pip.conf"
            config.write_text(pipconfig.render(settings))
            mounts = [f"--volume={config}:/etc/pip.conf:ro"]
            mounts += [
                f"--volume={path}:{path}:ro"
                for path in dict.fromkeys(map(_mountable, pipconfig.named_paths(settings)))
            ]
            run.run(
                # No namespaces but the file system: the build needs the machine's network, and
                # not every machine lets a build make its own.
                *(*buildah, "build", "--isolation", "chroot", "--network", "host", "--layers"),
                *("--build-arg", f"BASE=docker-archive:{base}", *mounts),
                *("--file", REPOSITORY / image.dockerfile, "--tag", image.reference, REPOSITORY),
            )
            run.run(
                *(*buildah, "push", image.reference),
                f"docker-archive:{build.out / ARCHIVE}:{image.reference}",
            )

    return Part(
        name=image.part,
        lane=Lane.ASSEMBLY,
        replaces=True,
        build=make,
        recipe=(image.reference,),
        sources=sources(REPOSITORY / image.dockerfile, REPOSITORY),
        needs=(BASE_PART.name,),
    )


def with_docker(image: Image) -> Part:
    """Return the part that builds an image with the user's Docker engine.

    Raises:
        FileNotFoundError: the Dockerfile, or something that it copies, is missing.
    """

    def make(build: Build) -> None:
        docker = ("docker", "build", "--file", REPOSITORY / image.dockerfile)
        build.run.run(*docker, "--tag", image.reference, REPOSITORY)
        build.run.run("docker", "save", "--output", build.out / ARCHIVE, image.reference)

    return Part(
        name=image.part,
        lane=Lane.ASSEMBLY,
        replaces=True,
        build=make,
        recipe=(image.reference, "docker"),
        sources=sources(REPOSITORY / image.dockerfile, REPOSITORY),
    )


def _mountable(path: Path) -> Path:
    """Return the folder to mount for a path: a certificate file is often a link beside others."""
    return path if path.is_dir() else path.parent
