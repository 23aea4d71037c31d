"""The cluster of KUBECONFIG with the operator on it. A cluster that is not there is an error."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from kubernetes import client

from hack.demo.cluster import connect, install_operator
from hack.demo.train import Models, trained_models
from tests.e2e.backstage import Backstage
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
LENGTHY = 112
LONG_LOOPS = 5_000_000
"""Eight to ten seconds on one core."""

LENGTHY_LOOPS = 2_000_000
"""Three to four: long enough to be in flight when something happens."""

STEP_S = 6
NEXT = pytest.StashKey[pytest.Item | None]()


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
        slow_model(folder / "lengthy.onnx", LENGTHY, LENGTHY_LOOPS),
        modern_model(folder / "modern.onnx", MODERN),
        foreign_model(folder / "foreign.onnx", FOREIGN),
        huge_model(folder / "huge.onnx", HUGE),
        twelve_classes_model(folder / "twelve-classes.onnx", TWELVE_CLASSES),
    )
    return replace(trained, versions=(*trained.versions, *extra))


@pytest.fixture(scope="session")
def backstage(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backstage]:
    behind = Backstage(models, tmp_path_factory.mktemp("backstage"))
    yield behind
    behind.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Tell a test which one comes after it."""
    item.stash[NEXT] = nextitem
    return (yield)


@pytest.fixture
def stage(
    api: client.ApiClient,
    operator: None,
    backstage: Backstage,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Scene]]:
    """Makes the scene of a test; it is taken down at the end, and its history stays in build/."""
    del operator
    namespace = namespace_of(request.node)
    with ExitStack() as stack:

        def make(step_s: int = STEP_S) -> Scene:
            the_scene = stack.enter_context(scene(api, namespace, backstage, tmp_path, step_s))
            prepare_next(request.node, backstage)
            return the_scene

        yield make


def namespace_of(test: pytest.Item) -> str:
    """A namespace of a test's own."""
    words = re.sub(r"[^a-z0-9]+", "-", test.name.removeprefix("test_").lower())
    # tests whose names begin alike would wait for each other's namespace to be gone
    distinct = hashlib.sha256(test.name.encode()).hexdigest()[:6]
    return f"{words[:33].strip('-')}-{distinct}"


def prepare_next(test: pytest.Item, backstage: Backstage) -> None:
    """Set up the next test's namespace meanwhile.

    Not for those that take minutes: they choose the nodes on which it is set up, or hurt them.
    """
    following = test.stash.get(NEXT, None)
    takes_minutes = following is not None and following.get_closest_marker("full") is not None
    if following is None or takes_minutes or test.get_closest_marker("full") is not None:
        return
    if "stage" in getattr(following, "fixturenames", ()):
        backstage.begin(namespace_of(following))
