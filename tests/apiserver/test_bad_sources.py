"""A metrics source that hangs, dawdles, talks nonsense or let its certificate expire.

It holds the rollouts that need it, says so, and slows nobody else's.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from model_operator.api.labels import API_VERSION
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import (
    World,
    condition,
    digest,
    model_deployment,
    operator,
    settings,
    world,
)
from tests.unit.metrics.served import serving

pytestmark = pytest.mark.timeout(120)

Manifest = dict[str, Any]
DAWDLE_S: Final = 1.5


@dataclass
class SickPrometheus:
    """Answers as it is told; once healthy, with what the played pods counted."""

    sickness: str
    watched: World | None = None
    asked: int = 0
    texts: set[str] = field(default_factory=set)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        text = str((await request.post())["query"])
        self.texts.add(text)
        match self.sickness:
            case "hangs":
                await asyncio.sleep(60)
            case "dawdles":
                await asyncio.sleep(DAWDLE_S)
            case "talks nonsense":
                return web.Response(text="<html>It works!</html>")
        return web.json_response({"status": "success", "data": self._counted(text)})

    def _counted(self, text: str) -> Manifest:
        assert self.watched is not None
        counts = {r: n for r, n in self.watched.answered.items() if f'"{r}"' in text}
        now = time.time()
        result = [
            {"metric": {"pod": r}, "value": [now, "0" if "5.." in text else str(n)]}
            for r, n in counts.items()
        ]
        return {"resultType": "vector", "result": result}


def expired(folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that was good until yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "prometheus.internal")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now - dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "expired.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ModelDeployments under one operator: one depends on the sick source, one does not."""

    sick: World
    well: World
    prometheus: SickPrometheus


Start = Callable[[str], Any]


@pytest.fixture
async def start(controllers: ControlPlane, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts both, with a sickness."""
    async with AsyncExitStack() as stack:

        async def begin(sickness: str) -> Pair:
            names = [f"test-{uuid.uuid4().hex[:8]}" for _ in range(2)]
            for name in names:
                controllers.kubectl("create", "namespace", name)
            sick, well = [
                await stack.enter_async_context(world(controllers.kubeconfig, name))
                for name in names
            ]
            sick.requests_per_s = well.requests_per_s = 100.0
            prometheus = SickPrometheus(sickness, sick)
            tls = expired(tmp_path) if sickness == "is expired" else None
            port = await stack.enter_async_context(serving(prometheus, tls))
            scheme = "https" if tls else "http"
            source = {
                "apiVersion": API_VERSION,
                "kind": "MetricSource",
                "metadata": {"name": names[0]},
                "spec": {
                    "type": "Prometheus",
                    "prometheus": {"url": f"{scheme}://127.0.0.1:{port}", "timeout": "1s"},
                },
            }
            created = await sick.create(source)
            stack.push_async_callback(sick.delete, created)
            configured = settings(controllers.kubeconfig, "")
            cluster = replace(configured.cluster, namespaces=tuple(names))
            await stack.enter_async_context(operator(replace(configured, cluster=cluster)))
            depends = model_deployment(names[0])
            depends["spec"]["rollout"]["analysis"]["metricSource"] = names[0]
            await sick.create(depends)
            await well.create(model_deployment(names[1]))
            await sick.until_ready()
            await well.until_ready()
            return Pair(sick, well, prometheus)

        yield begin


def second_model(manifest: Manifest) -> None:
    manifest["spec"]["model"]["digest"] = digest(2)


@pytest.mark.parametrize("sickness", ["hangs", "dawdles", "talks nonsense", "is expired"])
async def test_s17_a_sick_source_holds_its_own_rollout_and_slows_no_other(
    start: Start, sickness: str
) -> None:
    pair: Pair = await start(sickness)
    # when both get a new model
    await pair.sick.change(second_model)
    await pair.well.change(second_model)
    # then the one that does not depend on it is through while the other is held
    await pair.well.until_state("Baking")
    status = await pair.sick.until_state("Held")
    assert status["candidate"]["percent"] == 10
    assert status["rollout"]["reason"] in {"MetricsUnavailable", "ConfigurationError"}
    assert status["rollout"]["sinceTime"]
    assert condition(status, "Ready")["status"] == "True"
    stalled = condition(await pair.well.status(), "Stalled")
    assert stalled["status"] == "False", stalled
    # and nothing is rolled back, nothing goes on
    await asyncio.sleep(2)
    status = await pair.sick.status()
    assert status["candidate"]["percent"] == 10
    assert not status.get("rolledBack")
    # until it is well again
    if sickness != "is expired":
        pair.prometheus.sickness = ""
        await pair.sick.until_state("Baking")
