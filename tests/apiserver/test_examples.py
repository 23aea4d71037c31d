"""What users copy is what the API server takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.apiserver.control_plane import REPOSITORY, ControlPlane

_EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
_README = REPOSITORY / "README.md"
_YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _create(control_plane: ControlPlane, text: str) -> int:
    """Dry-run every object of a text, in the namespaces that it names; returns how many."""
    objects = [document for document in yaml.safe_load_all(text) if document]
    for name in {each["metadata"].get("namespace", "default") for each in objects}:
        control_plane.kubectl("apply", "-f", "-", stdin=_namespace(name))
    created = control_plane.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )
    assert created.count("created (server dry run)") == len(objects)
    return len(objects)


def _namespace(name: str) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def test_there_are_examples() -> None:
    assert _EXAMPLES


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_accepted(control_plane: ControlPlane, path: Path) -> None:
    assert _create(control_plane, path.read_text())


def test_what_the_readme_shows_is_accepted(control_plane: ControlPlane) -> None:
    blocks = _YAML_BLOCK.findall(_README.read_text())

    assert sum(_create(control_plane, block) for block in blocks)
