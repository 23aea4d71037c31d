"""The chart as Helm renders it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver.control_plane import tool

CHART = Path(__file__).resolve().parents[2] / "charts" / "model-operator"
RELEASE = "models"
NAMESPACE = "model-operator"

Objects = list[dict[str, Any]]
Helm = Callable[..., str]
Render = Callable[..., Objects]


class HelmError(Exception):
    """What Helm said when it failed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.chart)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Runs Helm with a home of its own."""
    home = tmp_path_factory.mktemp("helm")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [tool("helm"), *arguments],
            env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stderr + done.stdout)
        return done.stdout

    return run


@pytest.fixture
def render(helm: Helm, tmp_path: Path) -> Render:
    """Renders the chart with values and returns its objects, without the CRDs unless asked."""

    def template(values: dict[str, Any] | None = None, *, crds: bool = False) -> Objects:
        file = tmp_path / "values.json"
        file.write_text(json.dumps({"crds": {"install": crds}, **(values or {})}))
        release = ("template", RELEASE, str(CHART), "--namespace", NAMESPACE)
        text = helm(*release, "--values", str(file))
        return [document for document in yaml.safe_load_all(text) if document]

    return template


def only(objects: Objects, kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found
