import hashlib
import subprocess
from pathlib import Path

import pytest

from model_server.digest import digest_of


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights" * 300_000)

    assert digest_of(file) == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_digest_of_a_folder_can_be_computed_with_coreutils(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("model.onnx", "sub/weights.data", "sub/z", "a b"):
        (tmp_path / name).write_text(name)

    documented = (
        "find . -type f -printf '%P\\0' | xargs -0 sha256sum | sed 's/  / /' "
        "| LC_ALL=C sort | sha256sum"
    )
    shell = subprocess.run(
        ["bash", "-c", documented], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert digest_of(tmp_path) == "sha256:" + shell.stdout.split()[0]


def test_the_digest_of_a_folder_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("same")
    before = digest_of(tmp_path)

    (tmp_path / "a").rename(tmp_path / "b")

    assert digest_of(tmp_path) != before


def test_a_link_to_a_folder_is_refused_since_its_files_would_go_unverified(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"):
        digest_of(tmp_path / "model")
