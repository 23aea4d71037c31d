"""A metrics source that hangs, talks nonsense, has nothing to say or a certificate that expired.

It holds the rollouts that need it, says so, and slows nobody else's.
"""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import pytest

from model_operator.api.labels import API_VERSION
from tests.apiserver.authority import Authority, ServerTls
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
from tests.apiserver.played_prometheus import PlayedPrometheus, Sickness
from tests.unit.metrics.served import serving

pytestmark = pytest.mark.timeout(120)

Manifest = dict[str, Any]

TIMEOUT_S: Final = 1.0
OF_REVISION: Final = 'model_server_requests_total{revision="{{ revision }}"}'


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ModelDeployments under one operator: one depends on the played source, one does not.

    Attributes:
        tls: The source's, when it has any.
    """

    sick: World
    well: World
    prometheus: PlayedPrometheus
    authority: Authority
    tls: ServerTls | None


Start: TypeAlias = Callable[..., Coroutine[Any, Any, Pair]]


@pytest.fixture
async def start(controllers: ControlPlane, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts both with a source that is well."""
    async with AsyncExitStack() as stack:

        async def begin(*, timeout_s: float = TIMEOUT_S, tls: bool = False, **spec: Any) -> Pair:
            names = [f"test-{uuid.uuid4().hex[:8]}" for _ in range(2)]
            for name in names:
                controllers.kubectl("create", "namespace", name)
            sick, well = [
                await stack.enter_async_context(world(controllers.kubeconfig, name))
                for name in names
            ]
            sick.requests_per_s = well.requests_per_s = 100.0
            authority = Authority.new()
            leaf = authority.leaf(days_left=1)
            served = ServerTls.new(tmp_path / "served.pem", leaf) if tls else None
            prometheus = PlayedPrometheus(sick)
            port = await stack.enter_async_context(
                serving(prometheus, served.context if served else None)
            )
            await sick.create(secret(names[0], authority))
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            created = await sick.create(source(names[0], url, timeout_s))
            stack.push_async_callback(sick.delete, created)
            configured = settings(controllers.kubeconfig, "")
            cluster = replace(configured.cluster, namespaces=tuple(names), own_namespace=names[0])
            await stack.enter_async_context(operator(replace(configured, cluster=cluster)))
            depends = model_deployment(names[0])
            depends["spec"]["rollout"]["analysis"] |= {"metricSource": names[0], **spec}
            other = model_deployment(names[1])
            other["spec"]["rollout"]["bake"] = {"duration": "100ms"}
            await sick.create(depends)
            await well.create(other)
            await sick.until_ready()
            await well.until_ready()
            return Pair(sick, well, prometheus, authority, served)

        yield begin


def secret(namespace: str, authority: Authority) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "authority", "namespace": namespace},
        "data": {"ca.crt": base64.b64encode(authority.pem.encode()).decode()},
    }


def source(name: str, url: str, timeout_s: float) -> Manifest:
    prometheus: Manifest = {"url": url, "timeout": f"{round(timeout_s * 1000)}ms"}
    if url.startswith("https"):
        prometheus["tls"] = {"caSecret": {"name": "authority", "key": "ca.crt"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "MetricSource",
        "metadata": {"name": name},
        "spec": {"type": "Prometheus", "prometheus": prometheus},
    }


async def new_model(played: World, seed: int) -> None:
    await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(seed)))


@dataclass(frozen=True, slots=True)
class Pace:
    """How a rollout went.

    Attributes:
        took_s: From the new spec to all of the traffic, seconds.
        between_scrapes_s: Median time between two readings of a candidate pod's metrics, seconds.
    """

    took_s: float
    between_scrapes_s: float


async def pace_of_a_rollout(played: World, seed: int) -> Pace:
    """Roll a good model out to its end."""
    (old,) = played.weights_seen[-1]
    begun = time.monotonic()
    await new_model(played, seed)

    async def promoted() -> bool:
        return old not in played.weights_seen[-1]

    async def over() -> bool:
        idle = (await played.status())["rollout"]["state"] == "Idle"
        return idle and len(await played.deployments()) == 1

    await played.until("all of the traffic", promoted, timeout_s=60.0)
    took_s = time.monotonic() - begun
    (new,) = played.weights_seen[-1]
    scrapes = next(pod.scraped for pod in played.pods.values() if pod.revision == new)
    await played.until("the end of the bake", over)
    return Pace(took_s, median(later - earlier for earlier, later in pairwise(scrapes)))


async def has_weight(played: World) -> bool:
    return len(played.weights_seen[-1]) == 2


async def stays_held(played: World) -> Manifest:
    """Wait until a rollout is held at its first weight, and see that it stays there; its status."""
    held = await played.until_state("Held")
    assert held["rollout"]["sinceTime"]
    assert condition(held, "Ready")["status"] == "True"
    seen = [*played.weights_seen]
    assert sorted(seen[-1].values()) == [10, 90]
    # nothing is rolled back, nothing goes on
    await asyncio.sleep(2)
    status = await played.status()
    assert status["rollout"]["state"] == "Held"
    assert not status.get("rolledBack")
    assert played.weights_seen == seen
    return status


async def goes_on(played: World) -> None:
    """Wait until a rollout that was held is over, without a weight that is not planned."""
    await played.until_state("Baking")
    (old,) = played.weights_seen[0]
    new = (await played.status())["stable"]["revision"]
    await played.until_weights({old: 100}, {old: 90, new: 10}, {old: 50, new: 50}, {new: 100})


# --------------------------------------------------------------------- no answer that can be used


@pytest.mark.parametrize(
    ("sickness", "said"),
    [
        (Sickness.HANGS, f"no answer within {TIMEOUT_S:g} s"),
        (Sickness.TALKS_NONSENSE, "<html>It works!</html>"),
    ],
    ids=["hangs", "talks nonsense"],
)
async def test_s17_a_sick_source_holds_its_own_rollout_and_slows_no_other(
    start: Start, sickness: Sickness, said: str
) -> None:
    pair = await start()
    # given how fast a rollout is while nobody asks the source
    alone = await pace_of_a_rollout(pair.well, 2)
    # when the source is sick, and both get a new model
    pair.prometheus.sickness = sickness
    await new_model(pair.sick, 2)
    await pair.sick.until("it is asked", lambda: has_weight(pair.sick))
    beside = await pace_of_a_rollout(pair.well, 3)
    # then the one that does not depend on it was judged as often, and is as fast
    assert beside.between_scrapes_s < alone.between_scrapes_s + TIMEOUT_S / 2, (alone, beside)
    assert beside.took_s < 2 * alone.took_s + 2, (alone, beside)
    stalled = condition(await pair.well.status(), "Stalled")
    assert stalled["status"] == "False", stalled
    # and the other one is held, with the reason
    status = await stays_held(pair.sick)
    assert status["rollout"]["reason"] == "MetricsUnavailable"
    assert said in status["rollout"]["message"]
    assert pair.prometheus.asked
    # until the source is well again
    pair.prometheus.sickness = Sickness.NONE
    await goes_on(pair.sick)


async def test_s17_an_expired_certificate_holds_until_there_is_a_fresh_one(start: Start) -> None:
    # given a source whose certificate of a trusted authority has expired
    pair = await start(tls=True)
    assert pair.tls is not None
    pair.tls.serve(pair.authority.leaf(days_left=-1))
    # when a new model comes
    await new_model(pair.sick, 2)
    # then its rollout is held, and says that it is because of that
    status = await stays_held(pair.sick)
    assert status["rollout"]["reason"] == "MetricsUnavailable"
    assert "certificate has expired" in status["rollout"]["message"]
    assert not pair.prometheus.asked
    # until there is a fresh one of the same authority
    pair.tls.serve(pair.authority.leaf(days_left=1))
    await goes_on(pair.sick)


# -------------------------------------------------------------------------- answers that are slow


@pytest.mark.parametrize("takes_s", [0.7, 1.6], ids=["late", "later than a look may be"])
async def test_s17_a_source_that_is_slow_but_answers_in_time_holds_nothing_up(
    start: Start, takes_s: float
) -> None:
    pair = await start(timeout_s=5.0)
    alone = await pace_of_a_rollout(pair.well, 2)
    # given a source that takes its time
    pair.prometheus.takes_s = takes_s
    # when both get a new model
    await new_model(pair.sick, 2)
    await pair.sick.until("it is asked", lambda: has_weight(pair.sick))
    beside = await pace_of_a_rollout(pair.well, 3)
    # then the one that does not depend on it is as fast
    assert beside.took_s < 2 * alone.took_s + 2, (alone, beside)
    # and the other one goes on too
    await goes_on(pair.sick)
    assert not (await pair.sick.status()).get("rolledBack")


# ----------------------------------------------------------------------- answers that say nothing


@pytest.mark.parametrize(
    "sickness", [Sickness.IS_EMPTY, Sickness.SAYS_NAN, Sickness.IS_OLD], ids=lambda one: one.value
)
async def test_s14_s16_an_answer_without_data_holds_until_there_is_some(
    start: Start, sickness: Sickness
) -> None:
    # given an analysis of a range, of which the source has no data
    value = {"query": f"sum(rate({OF_REVISION}[1m]))", "min": "1", "window": "1s"}
    pair = await start(metrics=[{"name": "requests", "type": "Value", "value": value}])
    pair.prometheus.sickness = sickness
    # when a new model comes
    await new_model(pair.sick, 2)
    # then its rollout is held
    status = await stays_held(pair.sick)
    assert status["rollout"]["reason"] == "InsufficientData"
    assert pair.prometheus.asked
    # until there is data
    pair.prometheus.sickness = Sickness.NONE
    await goes_on(pair.sick)
