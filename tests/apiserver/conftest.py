"""One real API server for the session, a fresh namespace for each test."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import World, operator, settings, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


# NB: an operator that ends in the middle of a request can leave its connection to the garbage
# collector, which then fails whatever test comes next. What is left open besides still fails one.
LEFT_OPEN = (
    "ignore:Exception ignored in. <(socket|function _SelectorTransport)"
    ":pytest.PytestUnraisableExceptionWarning"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.apiserver)
            item.add_marker(pytest.mark.filterwarnings(LEFT_OPEN))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver with the project's CRDs and Gateway API's."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture(scope="session")
def controllers(control_plane: ControlPlane) -> ControlPlane:
    """The same control plane with kube-controller-manager: Deployments make pods, owners count."""
    control_plane.start_controllers()
    return control_plane


@pytest.fixture
def kubeconfig(control_plane: ControlPlane) -> Path:
    """An administrator's credentials."""
    return control_plane.kubeconfig


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    return name


@pytest.fixture
async def played(controllers: ControlPlane, namespace: str) -> AsyncIterator[World]:
    """A namespace with the operator and everything around it."""
    async with world(controllers.kubeconfig, namespace) as around:
        around.requests_per_s = 100.0
        async with operator(settings(controllers.kubeconfig, namespace)):
            yield around
