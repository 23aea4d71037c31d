"""The source Prometheus over HTTP: what it sends, what it makes of each answer."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from model_operator.adapters.prometheus import PrometheusSource, range_selectors
from model_operator.adapters.sources import QueryFailedError, ask
from model_operator.api.samples import FailureKind, Query, Samples, Series
from model_operator.api.types import Duration, Prometheus, Tls
from tests.unit.metrics.served import all_answers, serving

NOW = 1_800_000_000.0


def query(text: str = "up", source: str = "main") -> Query:
    return Query("m", text, source, "vision", "digits-a")


def vector(*samples: tuple[dict[str, str], str], at: float = NOW) -> dict[str, Any]:
    result = [{"metric": metric, "value": [at, value]} for metric, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@dataclass
class FakePrometheus:
    """Answers by the query's text; remembers what it was sent."""

    answers: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    hang: bool = False
    forms: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.forms.append(form)
        self.headers.append(dict(request.headers))
        self.paths.append(f"{request.method} {request.path}")
        if self.hang:
            await asyncio.sleep(60)
        answer = self.answers.get(form["query"], vector())
        if isinstance(answer, str):
            return web.Response(text=answer, status=self.status)
        return web.json_response(answer, status=self.status)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def source_for(
    stack: AsyncExitStack, server: FakePrometheus, *, path: str = "", **arguments: Any
) -> PrometheusSource:
    port = await stack.enter_async_context(serving(server))
    spec = Prometheus(url=f"http://127.0.0.1:{port}{path}", scrape_interval=Duration("2s"))
    source = PrometheusSource("main", spec, **arguments)
    stack.push_async_callback(source.close)
    return source


async def test_s16_it_posts_an_instant_query_for_samples_no_older_than_two_scrapes(
    stack: AsyncExitStack,
) -> None:
    server = FakePrometheus({"up": vector(({"__name__": "up", "pod": "a"}, "1"))})
    source = await source_for(stack, server, path="/prefix/", token="t0ken")  # noqa: S106 - not one
    answer = await source.query(query(), timeout_s=3)
    assert answer == Samples((Series((("pod", "a"),), 1.0),))
    assert server.paths == ["POST /prefix/api/v1/query"]
    assert server.forms == [{"query": "up", "timeout": "3s", "lookback_delta": "4"}]
    assert server.headers[0]["Authorization"] == "Bearer t0ken"


async def test_special_numbers_are_read(stack: AsyncExitStack) -> None:
    server = FakePrometheus({"up": vector(({"n": "1"}, "+Inf"), ({"n": "2"}, "-Inf"))})
    source = await source_for(stack, server)
    answer = await source.query(query(), timeout_s=3)
    assert [series.value for series in answer.series] == [float("inf"), float("-inf")]


async def test_a_scalar_is_a_series_without_labels(stack: AsyncExitStack) -> None:
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [NOW, "7"]}}
    source = await source_for(stack, FakePrometheus({"up": scalar}))
    assert await source.query(query(), timeout_s=3) == Samples((Series((), 7.0),))


async def test_warnings_are_handed_on(stack: AsyncExitStack) -> None:
    server = FakePrometheus({"up": {**vector(), "warnings": ["a store is down"]}})
    source = await source_for(stack, server)
    assert (await source.query(query(), timeout_s=3)).warnings == ("a store is down",)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.CONFIGURATION),
        (401, FailureKind.CONFIGURATION),
        (403, FailureKind.CONFIGURATION),
        (404, FailureKind.CONFIGURATION),
        (422, FailureKind.CONFIGURATION),
        (301, FailureKind.CONFIGURATION),
        (429, FailureKind.UNAVAILABLE),
        (500, FailureKind.UNAVAILABLE),
        (503, FailureKind.UNAVAILABLE),
    ],
)
async def test_the_status_tells_whether_asking_again_can_help(
    stack: AsyncExitStack, status: int, kind: FailureKind
) -> None:
    body = {"status": "error", "errorType": "x", "error": "what went wrong"}
    source = await source_for(stack, FakePrometheus({"up": body}, status=status))
    with pytest.raises(QueryFailedError, match=f"answers {status}: what went wrong") as error:
        await source.query(query(), timeout_s=3)
    assert error.value.failure.kind is kind


async def test_a_page_of_a_proxy_is_no_answer(stack: AsyncExitStack) -> None:
    source = await source_for(stack, FakePrometheus({"up": "<html>Bad gateway"}, status=502))
    with pytest.raises(QueryFailedError, match="answers 502: <html>Bad gateway"):
        await source.query(query(), timeout_s=3)


@pytest.mark.parametrize("kind", ["matrix", "string"])
async def test_what_is_no_instant_vector_is_a_configuration_error(
    stack: AsyncExitStack, kind: str
) -> None:
    body = {"status": "success", "data": {"resultType": kind, "result": []}}
    source = await source_for(stack, FakePrometheus({"up": body}))
    with pytest.raises(QueryFailedError, match=f"has a {kind}") as error:
        await source.query(query(), timeout_s=3)
    assert error.value.failure.kind is FailureKind.CONFIGURATION


async def test_nobody_listening_is_unavailable() -> None:
    source = PrometheusSource("main", Prometheus(url="http://127.0.0.1:9"))
    with pytest.raises(QueryFailedError) as error:
        await source.query(query(), timeout_s=3)
    await source.close()
    assert error.value.failure.kind is FailureKind.UNAVAILABLE


async def test_one_that_hangs_slows_no_other(stack: AsyncExitStack) -> None:
    hanging = await source_for(stack, FakePrometheus(hang=True))
    quick = await source_for(stack, FakePrometheus({"up": vector(({}, "1"))}))
    sources = {"hanging": hanging, "quick": quick}
    stuck = [query(f"up{i}", "hanging") for i in range(80)]
    waiting = asyncio.gather(all_answers(ask(stuck, lambda one: sources[one.source], timeout_s=2)))
    answers = await all_answers(
        ask([query(source="quick")], lambda one: sources[one.source], timeout_s=2)
    )
    assert not waiting.done()
    assert answers == {query(source="quick"): Samples((Series((), 1.0),))}
    (failures,) = await waiting
    assert {getattr(one, "kind", None) for one in failures.values()} == {FailureKind.UNAVAILABLE}


async def test_an_endless_answer_does_not_fill_the_memory(stack: AsyncExitStack) -> None:
    source = await source_for(stack, FakePrometheus({"up": " " * (9 * 1024 * 1024)}))
    with pytest.raises(QueryFailedError, match="larger than"):
        await source.query(query(), timeout_s=3)


RANGE = 'sum(rate(x{r="a"}[1m]))'
AGE = 'max(timestamp(x{r="a"}))'


@pytest.mark.parametrize(("age_s", "series"), [(0.5, 1), (4.0, 1), (4.5, 0)])
async def test_s16_a_range_whose_newest_sample_is_older_than_two_scrapes_is_no_data(
    stack: AsyncExitStack, age_s: float, series: int
) -> None:
    answers = {RANGE: vector(({}, "0.5")), AGE: vector(({}, str(NOW - age_s)))}
    source = await source_for(stack, FakePrometheus(answers))
    assert len((await source.query(query(RANGE), timeout_s=3)).series) == series


async def test_s16_a_range_without_any_recent_sample_is_no_data(stack: AsyncExitStack) -> None:
    source = await source_for(stack, FakePrometheus({RANGE: vector(({}, "0")), AGE: vector()}))
    assert (await source.query(query(RANGE), timeout_s=3)).series == ()


@pytest.mark.parametrize(
    ("text", "selectors"),
    [
        ("up", ()),
        ("rate(x[1m])", ("x",)),
        ('sum(rate(x{a="b"}[1m])) / sum(rate(y [30s]))', ('x{a="b"}', "y")),
        ('rate({__name__="x"}[1m])', ('{__name__="x"}',)),
        ('x{code=~"x[45].."}', ()),
        ('rate(x{code=~"[45]..",b="}"}[1m])', ('x{code=~"[45]..",b="}"}',)),
        ("max_over_time(rate(x[1m])[5m:1m])", ("x",)),
        ("rate(x[1m]) + rate(x[1m])", ("x",)),
        ("rate(job:x:sum[60000ms] offset 5m)", ("job:x:sum",)),
    ],
)
def test_selectors_of_ranges_are_found_and_nothing_else(
    text: str, selectors: tuple[str, ...]
) -> None:
    assert range_selectors(text) == selectors


def self_signed(name: str) -> tuple[bytes, bytes]:
    """Certificate and key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("trusted", "name", "works"),
    [(True, "prometheus.internal", True), (True, "other.internal", False), (False, "x", False)],
)
async def test_tls_trusts_the_given_authority_for_the_given_name_only(
    stack: AsyncExitStack,
    tmp_path: Path,
    trusted: bool,  # noqa: FBT001 - parametrised
    name: str,
    works: bool,  # noqa: FBT001 - parametrised
) -> None:
    certificate, key = self_signed("prometheus.internal")
    (tmp_path / "cert").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    port = await stack.enter_async_context(serving(FakePrometheus(), tls=context))
    spec = Prometheus(url=f"https://127.0.0.1:{port}", tls=Tls(server_name=name))
    source = PrometheusSource("main", spec, ca_pem=certificate.decode() if trusted else None)
    stack.push_async_callback(source.close)
    if works:
        assert await source.query(query(), timeout_s=3) == Samples()
    else:
        with pytest.raises(QueryFailedError, match=r"(?i)certificate"):
            await source.query(query(), timeout_s=3)
