"""Image archives are the same for the same content, and say which images they hold."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from hack.cluster.archive import ImageConfig, image_ids, write_image, write_layer

if TYPE_CHECKING:
    from pathlib import Path


def write_tar(path: Path, files: dict[str, object]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make_image(folder: Path) -> Path:
    folder.mkdir()
    program = folder / "program"
    program.write_text("#!")
    layer = folder / "layer.tar"
    write_layer(layer, files={"/usr/bin/program": program}, texts={"/etc/version": "v1"})
    config = ImageConfig(entrypoint=("/usr/bin/program",), user="65532", stop_signal="SIGINT")
    write_image(folder / "image.tar", "localhost/x:dev", [layer], config)
    return folder / "image.tar"


def test_equal_content_makes_equal_archives(tmp_path: Path) -> None:
    first, second = make_image(tmp_path / "1"), make_image(tmp_path / "2")

    assert first.read_bytes() == second.read_bytes()


def test_an_archive_is_what_an_engine_expects(tmp_path: Path) -> None:
    path = make_image(tmp_path / "image")

    with tarfile.open(path) as archive:
        [manifest] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type] # it is there
        config = archive.extractfile(manifest["Config"]).read()  # type: ignore[union-attr] # it is there
        [layer] = [archive.extractfile(name).read() for name in manifest["Layers"]]  # type: ignore[union-attr] # they are there
    document = json.loads(config)

    assert manifest["RepoTags"] == ["localhost/x:dev"]
    assert document["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert len(document["history"]) == 1
    assert document["config"]["Entrypoint"] == ["/usr/bin/program"]
    assert document["config"]["User"] == "65532"
    assert document["config"]["StopSignal"] == "SIGINT"
    assert image_ids(path) == {"localhost/x:dev": f"sha256:{hashlib.sha256(config).hexdigest()}"}


def test_files_of_a_layer_belong_to_root_and_their_folders_can_be_entered(tmp_path: Path) -> None:
    make_image(tmp_path / "image")

    with tarfile.open(tmp_path / "image" / "layer.tar") as layer:
        modes = {member.name: member.mode for member in layer.getmembers()}
        owners = {(member.uid, member.gid, member.uname) for member in layer.getmembers()}

    assert modes == {
        "etc": 0o755,
        "etc/version": 0o644,
        "usr": 0o755,
        "usr/bin": 0o755,
        "usr/bin/program": 0o755,
    }
    assert owners == {(0, 0, "root")}


def test_an_oci_archive_says_its_images_ids(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "oci.tar",
        {
            "index.json": {
                "manifests": [
                    {
                        "digest": "sha256:aa",
                        "annotations": {"org.opencontainers.image.ref.name": "localhost/y:dev"},
                    }
                ]
            },
            "blobs/sha256/aa": {"config": {"digest": "sha256:bb"}},
        },
    )

    assert image_ids(path) == {"localhost/y:dev": "sha256:bb"}


def test_the_id_is_found_in_the_layout_of_newer_engines_too(tmp_path: Path) -> None:
    manifest = [{"Config": "blobs/sha256/cc", "RepoTags": ["localhost/z:dev"], "Layers": []}]

    path = write_tar(tmp_path / "docker.tar", {"manifest.json": manifest})

    assert image_ids(path) == {"localhost/z:dev": "sha256:cc"}


def test_a_file_that_is_no_image_archive_is_refused_with_its_name(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a tar")
    with pytest.raises(ValueError, match=r"notes\.txt is no archive"):
        image_ids(text)

    nameless: dict[str, object] = {"manifest.json": [{"Config": "a.json", "RepoTags": None}]}
    other: dict[str, object] = {"other": {}}
    for files in (other, nameless):
        path = write_tar(tmp_path / "some.tar", files)
        with pytest.raises(ValueError, match="has no image with a name"):
            image_ids(path)
