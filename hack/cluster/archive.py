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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Go's names, which image configurations use.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a container of an image starts."""

    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
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


def image_ids(archive: Path) -> dict[str, str]:
    """Return the names that an archive gives its images, each with the image's id.

    Raises:
        ValueError: the file is no image archive in Docker's or the OCI's format, or names no image.
    """
    try:
        with tarfile.open(archive) as content:
            places = set(content.getnames())
            if "manifest.json" in places:
                found = _docker_images(content)
            elif "index.json" in places:
                found = _oci_images(content)
            else:
                found = {}
    except tarfile.TarError as error:
        raise ValueError(f"{archive} is no archive: {error}") from error
    if not found:
        raise ValueError(f"{archive} has no image with a name")
    return found


def _docker_images(archive: tarfile.TarFile) -> dict[str, str]:
    images = {}
    for image in _read_json(archive, "manifest.json"):
        # Engines name the configuration HASH.json or blobs/sha256/HASH; the hash is the image's id.
        digest = PurePosixPath(image["Config"]).name.removesuffix(".json")
        images.update(dict.fromkeys(image.get("RepoTags") or [], f"sha256:{digest}"))
    return images


def _oci_images(archive: tarfile.TarFile) -> dict[str, str]:
    images = {}
    for entry in _read_json(archive, "index.json")["manifests"]:
        notes = entry.get("annotations", {})
        name = notes.get("io.containerd.image.name") or notes.get(
            "org.opencontainers.image.ref.name"
        )
        if name:
            manifest = _read_json(archive, "blobs/" + entry["digest"].replace(":", "/"))
            images[name] = manifest["config"]["digest"]
    return images


def _read_json(archive: tarfile.TarFile, place: str) -> Any:
    member = archive.extractfile(place)
    if member is None:
        raise tarfile.ReadError(f"{place} is not a file")
    return json.load(member)


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
