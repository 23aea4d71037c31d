"""The REST application around a real model, without a socket."""

from typing import Any

import httpx

from model_server.dataplane import DataPlane
from model_server.metrics import Metrics
from model_server.rest import RestApp, RestSettings
from tests.unit.server.serving import NAME, REVISION


class Service:
    """The ASGI application around a real model, without a socket."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics(NAME, REVISION)
        self.dataplane = DataPlane(concurrency=1, max_waiting=1, metrics=self.metrics)
        self.app: Any = RestApp(
            self.dataplane,
            self.metrics,
            model=NAME,
            revision=REVISION,
            settings=RestSettings(**settings),
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://server")

    def count(self, code: int) -> float:
        labels = {"model": NAME, "revision": REVISION, "code": str(code)}
        value = self.metrics.registry.get_sample_value("model_server_requests_total", labels)
        assert value is not None, f"no series for {code}"
        return value


def body(*indices: object, **fields: Any) -> dict[str, Any]:
    """An inference request of `onnx_models.lookup`."""
    tensor = {"name": "i", "datatype": "INT64", "shape": [len(indices)], "data": list(indices)}
    return {"inputs": [tensor], **fields}
