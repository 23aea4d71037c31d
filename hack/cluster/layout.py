"""Where things are: the checkout, the cache, and the files of one cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent

DEFAULT_CLUSTER = "model-operator"

# A Unix socket's path has room for 107 bytes (sun_path less its end).
_MAX_SOCKET_PATH = 107


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for everything that is built or kept outside the checkout."""
    base = environ.get("XDG_CACHE_HOME") or str(
        Path(environ.get("HOME", "~")).expanduser() / ".cache"
    )
    return Path(base) / "model-operator"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one cluster.

    Attributes:
        cache: the root of the cache, shared by all clusters.
        cluster: the cluster's name, which is kind's name for it too.
    """

    cache: Path
    cluster: str = DEFAULT_CLUSTER

    @property
    def parts(self) -> Path:
        """Built parts, each in a folder named after what it was built from."""
        return self.cache / "parts"

    @property
    def bin(self) -> Path:
        """Links to the current binaries, fit for PATH."""
        return self.cache / "bin"

    @property
    def buildah(self) -> Path:
        """The storage of image builds without a Docker engine."""
        return self.cache / "buildah"

    @property
    def state(self) -> Path:
        """What this cluster keeps while it is up."""
        default = self.cluster == DEFAULT_CLUSTER
        return self.cache / ("cluster" if default else f"cluster-{self.cluster}")

    @property
    def kubeconfig(self) -> Path:
        """The credentials of the cluster's administrator."""
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        """Logs of the commands that built and run this cluster."""
        return self.state / "logs"

    @property
    def engine_data(self) -> Path:
        """The private Docker engine's images; they outlive the cluster."""
        return self.state / "docker"

    @property
    def engine_socket(self) -> Path:
        """The private Docker engine's API.

        Raises:
            ValueError: the path is too long for a Unix socket.
        """
        path = self.state / "docker.sock"
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise ValueError(
                f"{path} is too long for a socket: set XDG_CACHE_HOME to a shorter path"
            )
        return path

    @property
    def inbox(self) -> Path:
        """A folder that every node sees as its own /inbox; image archives are loaded from it."""
        return self.state / "inbox"

    @property
    def state_file(self) -> Path:
        """What has to be remembered of the cluster that is up."""
        return self.state / "state.json"

    @property
    def host_state(self) -> Path:
        """The machine's settings before any cluster changed them, shared by all clusters."""
        return self.cache / "host-before.json"
