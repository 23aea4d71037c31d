"""Image archives in Docker's format, written without a container engine.

The layers hold single static binaries or whole root file systems, so nothing has to be run to
build them; a fixed time and owner make equal content give equal images.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Go's names, which image configurations use.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a container of an image starts."""

    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    user: str = ""
    stop_signal: str = ""

    def document(self, diff_ids: Sequence[str]) -> dict[str, object]:
        """Return the image's configuration in the form that engines read."""
        container: dict[str, object] = {"Env": list(self.env)}
        if self.entrypoint:
            container["Entrypoint"] = list(self.entrypoint)
        if self.user:
            container["User"] = self.user
        if self.stop_signal:
            container["StopSignal"] = self.stop_signal
        return {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": container,
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            # Builders that add layers to an image count these.
            "history": [{"created_by": "hack/cluster"} for _ in diff_ids],
        }


def write_layer(
    path: Path,
    *,
    files: Mapping[str, Path] | None = None,
    texts: Mapping[str, str] | None = None,
    trees: Mapping[str, Path] | None = None,
) -> None:
    """Write a layer: executables, small text files and whole folders, by their place in it."""
    places = [*(trees or {}), *(files or {}), *(texts or {})]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
        # Engines make up the mode of a folder that is missing, and not all choose one to enter.
        for parent in sorted({str(p) for place in places for p in PurePosixPath(place).parents}):
            if parent not in {"/", "."}:
                folder = _normalised(tarfile.TarInfo(parent.lstrip("/")))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                layer.addfile(folder)
        for place, tree in sorted((trees or {}).items()):
            layer.add(tree, place.lstrip("/"), filter=_normalised)
        for place, file in sorted((files or {}).items()):
            member = _normalised(layer.gettarinfo(file, place.lstrip("/")))
            member.mode = 0o755
            with file.open("rb") as content:
                layer.addfile(member, content)
        for place, text in sorted((texts or {}).items()):
            member = _normalised(tarfile.TarInfo(place.lstrip("/")))
            member.mode = 0o644
            member.size = len(text.encode())
            layer.addfile(member, io.BytesIO(text.encode()))


def write_image(path: Path, reference: str, layers: Sequence[Path], config: ImageConfig) -> None:
    """Write an archive that ``docker load`` and ``ctr images import`` take."""
    digests = [_sha256(layer) for layer in layers]
    document = json.dumps(
        config.document([f"sha256:{digest}" for digest in digests]), sort_keys=True
    ).encode()
    config_name = f"{hashlib.sha256(document).hexdigest()}.json"
    manifest = [
        {
            "Config": config_name,
            "RepoTags": [reference],
            "Layers": [f"{digest}.tar" for digest in digests],
        }
    ]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for digest, layer in dict(zip(digests, layers, strict=True)).items():
            archive.add(layer, f"{digest}.tar", filter=_normalised)
        _add_bytes(archive, config_name, document)
        _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())


def references(archive: Path) -> tuple[str, ...]:
    """Return the names that an archive gives its images.

    Raises:
        ValueError: the file is no image archive in Docker's or the OCI's format.
    """
    try:
        with tarfile.open(archive) as content:
            for name, read in (("manifest.json", _docker_names), ("index.json", _oci_names)):
                try:
                    member = content.extractfile(name)
                except KeyError:
                    continue
                if member is not None:
                    return tuple(read(member))
    except tarfile.TarError as error:
        raise ValueError(f"{archive} is no archive: {error}") from error
    raise ValueError(f"{archive} is no image archive: neither manifest.json nor index.json in it")


def _docker_names(manifest: IO[bytes]) -> Iterable[str]:
    return [name for image in json.load(manifest) for name in image.get("RepoTags") or []]


def _oci_names(index: IO[bytes]) -> Iterable[str]:
    annotations = [m.get("annotations", {}) for m in json.load(index).get("manifests", [])]
    names = [
        a.get("io.containerd.image.name") or a.get("org.opencontainers.image.ref.name")
        for a in annotations
    ]
    return [name for name in names if name]


def _normalised(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = _normalised(tarfile.TarInfo(name))
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
