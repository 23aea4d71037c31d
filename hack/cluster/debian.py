"""What comes from Debian packages: programs on this machine, and root file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

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


def _unpack_engine(build: Build) -> None:
    """Unpack Docker and runc: installed, they would start services of their own."""
    downloads = build.out / "packages"
    downloads.mkdir()
    # apt gives up root to download and must be able to write there.
    downloads.chmod(0o777)
    fetch = ("apt-get", "download", "-q", "docker.io", "runc")
    if not build.run.succeeds("sh", "-c", f"cd {downloads} && {' '.join(fetch)}", timeout_s=300):
        build.run.run("apt-get", "update", "-q")
        build.run.run(*fetch, cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        build.run.run("dpkg", "-x", package, build.out / "root")
    shutil.rmtree(downloads)


def _bootstrap(build: Build, variant: str, packages: tuple[str, ...], *options: str) -> None:
    build.run.run(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        f"--variant={variant}",
        f"--include={','.join(packages)}",
        # Package lists and documentation are half of a small root file system.
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        *options,
        SUITE,
        build.out / "root.tar",
    )


def _bootstrap_part(name: str, variant: str, packages: tuple[str, ...]) -> Part:
    return Part(
        name=name,
        lane=Lane.DEBIAN,
        build=lambda build: _bootstrap(build, variant, packages),
        recipe=(SUITE, variant, *packages),
        sources=(Path(__file__),),
    )


# kind's own list (images/base/Dockerfile) without network storage, and with what kind compiles.
_NODE_PACKAGES = (
    *("systemd", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount"),
    *("kmod", "libseccomp2", "pigz", "e2fsprogs", "bash", "ca-certificates", "curl", "jq", "procps"),
    *("runc", "containernetworking-plugins"),
)


def _bootstrap_node(build: Build) -> None:
    files = module_source("kind", "sigs.k8s.io/kind", build.run) / "images" / "base" / "files"
    hook = f"--customize-hook={_CUSTOMIZE_NODE} {files} \"$1\""
    _bootstrap(build, "minbase", _NODE_PACKAGES, hook)


DEBIAN_PARTS = (
    Part(
        name="engine",
        lane=Lane.DEBIAN,
        build=_unpack_engine,
        recipe=(SUITE,),
        sources=(Path(__file__),),
    ),
    _bootstrap_part("proxy-root", "essential", ("iptables", "nftables")),
    Part(
        name="node-root",
        lane=Lane.DEBIAN,
        build=_bootstrap_node,
        recipe=(SUITE, *_NODE_PACKAGES),
        sources=(Path(__file__), _CUSTOMIZE_NODE, SOURCES / "go" / "kind"),
    ),
    _bootstrap_part("python-root", "minbase", ("python3", "python3-venv", "ca-certificates")),
)
