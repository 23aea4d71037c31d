"""Writes every generated file; with --check, says which ones differ and fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hack.generate import crds, reference

ROOT = Path(__file__).resolve().parents[2]
CRD_FOLDERS = ("crds", "charts/model-operator/files/crds")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write or check; the exit code is 1 if a checked file differs."""
    parser = argparse.ArgumentParser(prog="python -m hack.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on differences")
    check = parser.parse_args(arguments).check
    folders = [root / folder for folder in CRD_FOLDERS]
    expected = {folder / name: text for name, text in crds.files() for folder in folders}
    expected[root / reference.PATH] = reference.reference()
    present = {path for folder in folders for path in folder.glob("*.yaml")}
    stale = [path for path, text in expected.items() if not _holds(path, text)]
    surplus = sorted(present - expected.keys())
    if check:
        for path in [*stale, *surplus]:
            print(f"{path.relative_to(root)} differs: run `python -m hack.generate`")
        return 1 if stale or surplus else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(expected[path])
        print(f"wrote {path.relative_to(root)}")
    for path in surplus:
        path.unlink()
        print(f"removed {path.relative_to(root)}")
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
