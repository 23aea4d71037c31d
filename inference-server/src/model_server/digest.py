"""The digest that names a model's content."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

PREFIX = "sha256:"


def digest_of(path: Path) -> str:
    r"""Return `sha256:<hex>` of a model file or folder.

    A file's digest is that of its bytes. A folder's is the sha256 of the lines `<sha256> <path>`
    of all files below it, sorted bytewise and each ended by a newline, paths relative with `/`:

        find . -type f -printf '%P\0' | xargs -0 sha256sum | sed 's/  / /' \
            | LC_ALL=C sort | sha256sum

    Raises:
        OSError: Something below `path` cannot be read, or is neither a file nor a folder.
    """
    if not path.is_dir():
        return PREFIX + _sha256_hex(path)
    lines = sorted(
        f"{_sha256_hex(file)} {file.relative_to(path).as_posix()}\n".encode()
        for file in _files_below(path)
    )
    return PREFIX + hashlib.sha256(b"".join(lines)).hexdigest()


def _sha256_hex(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        for name in folders:
            # NB: os.walk does not enter it, so its files would be served without being hashed
            if (Path(parent) / name).is_symlink():
                raise OSError(f"{Path(parent) / name} is a symbolic link to a folder")
        for name in files:
            yield Path(parent) / name
