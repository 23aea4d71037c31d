"""Writes every generated file; with --check, says which ones differ and fails."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.generate import crds

ROOT = Path(__file__).resolve().parents[2]
CRD_FOLDERS = (ROOT / "crds", ROOT / "charts/model-operator/files/crds")


def generated() -> dict[Path, str]:
    """Return every generated file with its content."""
    return {folder / name: text for name, text in crds.files() for folder in CRD_FOLDERS}


def main() -> int:
    """Write or check; the exit code is 1 if a checked file differs."""
    parser = argparse.ArgumentParser(prog="python -m hack.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on differences")
    check = parser.parse_args().check
    expected = generated()
    present = {path for folder in CRD_FOLDERS for path in folder.glob("*.yaml")}
    stale = [p for p, text in expected.items() if not p.exists() or p.read_text() != text]
    surplus = sorted(present - expected.keys())
    if check:
        for path in [*stale, *surplus]:
            print(f"{path.relative_to(ROOT)} differs: run `python -m hack.generate`")
        return 1 if stale or surplus else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(expected[path])
        print(f"wrote {path.relative_to(ROOT)}")
    for path in surplus:
        path.unlink()
        print(f"removed {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
