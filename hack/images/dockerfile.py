"""What a Dockerfile takes from its build context."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction with its argument, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, _, argument = line.strip().partition(" ")
        if word:
            yield word.upper(), argument.strip()


def copied(text: str) -> tuple[str, ...]:
    """Return the paths, or patterns of paths, that a Dockerfile copies out of its context.

    What it copies from another stage or image is not among them.
    """
    found: list[str] = []
    for word, argument in instructions(text):
        if word not in {"COPY", "ADD"}:
            continue
        options = re.match(r"(?:--\S+\s+)*", argument)
        flags = options[0] if options else ""
        if "--from=" in flags:
            continue
        rest = argument[len(flags) :]
        paths = json.loads(rest) if rest.startswith("[") else rest.split()
        found += paths[:-1]
    return tuple(dict.fromkeys(found))


def sources(dockerfile: Path, context: Path) -> tuple[Path, ...]:
    """Return every file and folder that shapes the image, the Dockerfile first.

    Raises:
        FileNotFoundError: the Dockerfile is missing, or copies something that is.
    """
    paths = [dockerfile]
    for pattern in copied(dockerfile.read_text()):
        matches = (
            sorted(context.glob(pattern.strip("/"))) if pattern not in {".", "./"} else [context]
        )
        if not matches:
            raise FileNotFoundError(f"{dockerfile} copies {pattern}, which does not exist")
        paths += matches
    return tuple(paths)
