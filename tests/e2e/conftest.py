"""The cluster of KUBECONFIG with the operator on it. A cluster that is not there is an error."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from kubernetes import client

from hack.demo.cluster import connect, install_operator
from hack.demo.train import Models, trained_models
from tests.e2e.models import (
    corrupt_model,
    foreign_model,
    huge_model,
    hungry_model,
    modern_model,
    slow_model,
    twelve_classes_model,
)
from tests.e2e.scene import Scene, scene

SLOW, HUNGRY, CORRUPT, LONG = 104, 105, 106, 107
MODERN, FOREIGN, HUGE, TWELVE_CLASSES = 108, 109, 110, 111
LONG_LOOPS = 5_000_000
"""Eight to ten seconds on one core."""
STEP_S = 6


@pytest.fixture(scope="session")
def api() -> client.ApiClient:
    return connect()


@pytest.fixture(scope="session")
def operator(api: client.ApiClient) -> None:
    del api
    install_operator()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    trained = trained_models()
    extra = (
        slow_model(folder / "slow.onnx", SLOW),
        hungry_model(folder / "hungry.onnx", HUNGRY),
        corrupt_model(folder / "corrupt.onnx", CORRUPT),
        slow_model(folder / "long.onnx", LONG, LONG_LOOPS),
        modern_model(folder / "modern.onnx", MODERN),
        foreign_model(folder / "foreign.onnx", FOREIGN),
        huge_model(folder / "huge.onnx", HUGE),
        twelve_classes_model(folder / "twelve-classes.onnx", TWELVE_CLASSES),
    )
    return replace(trained, versions=(*trained.versions, *extra))


@pytest.fixture
def stage(
    api: client.ApiClient,
    operator: None,
    models: Models,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Scene]]:
    """Makes the scene of a test; it is taken down at the end, and its history stays in build/."""
    del operator
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    # tests whose names begin alike would wait for each other's namespace to be gone
    distinct = hashlib.sha256(request.node.name.encode()).hexdigest()[:6]
    namespace = f"{words[:33].strip('-')}-{distinct}"
    with ExitStack() as stack:

        def make(step_s: int = STEP_S) -> Scene:
            return stack.enter_context(scene(api, namespace, models, tmp_path, step_s))

        yield make
