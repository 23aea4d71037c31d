"""This machine's pip configuration, for use inside an image build.

A machine may reach packages only through an index or with a certificate of its own. The build has
to use the same, and nothing of it may stay in the image: the configuration and the files it names
are mounted for the length of the build.
"""

from __future__ import annotations

import configparser
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PREFIX = "PIP_"
# Paths of this machine that mean nothing in a container.
_LOCAL_ONLY = frozenset({"cache-dir", "config-file", "log", "require-virtualenv", "target", "user"})


def read(
    environ: Mapping[str, str], home: Path, system: Path = Path("/etc/pip.conf")
) -> dict[str, str]:
    """Return pip's global settings: files first, the environment's ``PIP_*`` over them."""
    parser = configparser.RawConfigParser()
    files = [system, home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    if "PIP_CONFIG_FILE" in environ:
        files.append(Path(environ["PIP_CONFIG_FILE"]))
    parser.read(files)
    settings = dict(parser["global"]) if parser.has_section("global") else {}
    for name, value in environ.items():
        if name.startswith(_PREFIX) and value:
            settings[name.removeprefix(_PREFIX).lower().replace("_", "-")] = value
    return {name: value for name, value in settings.items() if name not in _LOCAL_ONLY}


def render(settings: Mapping[str, str]) -> str:
    """Return the settings as a ``pip.conf``."""
    parser = configparser.RawConfigParser()
    parser["global"] = dict(sorted(settings.items()))
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def named_paths(settings: Mapping[str, str]) -> Iterable[Path]:
    """Yield the files and folders of this machine that the settings name."""
    for value in settings.values():
        for word in value.split():
            if word.startswith("/") and Path(word).exists():
                yield Path(word)
