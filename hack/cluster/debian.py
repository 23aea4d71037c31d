"""What comes from Debian packages: programs on this machine, and root file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from hack.cluster.gotools import module_source
from hack.cluster.layout import SOURCES
from hack.cluster.parts import Build, Lane, Part
from hack.cluster.process import ClusterError, Runner

SUITE = "bookworm"

# Beside these the private engine needs nothing from the machine but a kernel.
ENGINE_PACKAGES = (
    "ca-certificates",
    "iproute2",
    "iptables",
    "libdevmapper1.02.1",
    "libseccomp2",
    "libsystemd0",
    "mmdebstrap",
)
IMAGE_PACKAGES = ("buildah", "mmdebstrap")

_UNPACKED = ("docker.io", "runc")
_CUSTOMIZE_NODE = SOURCES / "node" / "customize-root"


def ensure_packages(names: tuple[str, ...], run: Runner) -> None:
    """Install Debian packages that are missing.

    Raises:
        ClusterError: this is not Debian, or the user is not root; the message says what to install.
    """
    missing = [name for name in names if not _is_installed(name)]
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterError(f"install these Debian packages first: {' '.join(missing)}")
    apt = Runner(run.log, {"DEBIAN_FRONTEND": "noninteractive"})
    install = ("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    if not apt.succeeds(*install, timeout_s=900):
        apt.run("apt-get", "update", "-q")
        apt.run(*install)


def _is_installed(package: str) -> bool:
    if not shutil.which("dpkg-query"):
        return False
    done = subprocess.run(
        ("dpkg-query", "-W", "-f", "${db:Status-Status}", package),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout == "installed"


@dataclass(frozen=True, slots=True)
class RootFilesystem:
    """A small Debian system, as one tar archive.

    Attributes:
        name: of the part.
        variant: mmdebstrap's word for what there is beside the packages.
    """

    name: str
    variant: str
    packages: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """What makes it, but for the suite and the archive's path."""
        return (
            *("mmdebstrap", "--quiet", "--mode=root", f"--variant={self.variant}"),
            f"--include={','.join(self.packages)}",
            # What only people read takes a good part of a small system.
            *(
                f"--dpkgopt=path-exclude=/usr/share/{unread}/*"
                for unread in ("man", "doc", "locale")
            ),
        )

    def build(self, build: Build, *options: str) -> None:
        """Write ``root.tar``."""
        build.run.run(*self.command, *options, SUITE, build.out / "root.tar")

    def part(self) -> Part:
        """Return the part that makes it."""
        return Part(self.name, Lane.DEBIAN, self.build, recipe=(*self.command, SUITE))


# kind's own list (images/base/Dockerfile) without network storage, and with what kind compiles.
_NODE = RootFilesystem(
    "node-root",
    "minbase",
    (
        *("systemd", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux"),
        *("mount", "kmod", "libseccomp2", "pigz", "e2fsprogs", "bash", "ca-certificates", "curl"),
        *("jq", "procps", "runc", "containernetworking-plugins"),
    ),
)


def _build_node(build: Build) -> None:
    files = module_source("kind", "sigs.k8s.io/kind", build.run) / "images" / "base" / "files"
    _NODE.build(build, f'--customize-hook={_CUSTOMIZE_NODE} {files} "$1"')


def _unpack_engine(build: Build) -> None:
    """Unpack Docker and runc: installed, they would start services of their own."""
    downloads = build.out / "packages"
    downloads.mkdir()
    downloads.chmod(0o777)  # apt gives up root to download
    fetch = ("apt-get", "download", "-q", *_UNPACKED)
    if not build.run.succeeds(*fetch, cwd=downloads, timeout_s=300):
        build.run.run("apt-get", "update", "-q")
        build.run.run(*fetch, cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        build.run.run("dpkg", "-x", package, build.out / "root")
    shutil.rmtree(downloads)


DEBIAN_PARTS = (
    Part("engine", Lane.DEBIAN, _unpack_engine, recipe=_UNPACKED),
    RootFilesystem("proxy-root", "essential", ("iptables", "nftables")).part(),
    Part(
        name="node-root",
        lane=Lane.DEBIAN,
        build=_build_node,
        recipe=(*_NODE.command, SUITE),
        sources=(_CUSTOMIZE_NODE, SOURCES / "go" / "kind"),
    ),
    RootFilesystem("python-root", "minbase", ("python3", "python3-venv", "ca-certificates")).part(),
)
