from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from tests.unit.server import onnx_models
from tests.unit.server.rest_service import Service
from tests.unit.server.serving import loaded


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def models(tmp_path: Path) -> Callable[[ModelProto], Any]:
    return lambda model: loaded(model, tmp_path)


@pytest.fixture
async def service(models: Callable[[ModelProto], Any]) -> AsyncIterator[Service]:
    """Serves a table of two entries."""
    service = Service()
    service.dataplane.attach(models(onnx_models.lookup()))
    yield service
    await service.client.aclose()
    service.dataplane.close()
