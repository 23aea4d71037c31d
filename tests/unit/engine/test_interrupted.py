"""Suspensions, absent gateways and lost statuses, with the whole engine on a played API."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from model_operator.adapters.kube import ServerError
from model_operator.api.labels import REVISION
from model_operator.api.samples import POD_LABEL, Query, Samples, Series
from tests.builders import NOW
from tests.unit.engine.played_engine import ROLLOUT, World, running, stable

pytestmark = pytest.mark.looptime


def edit(w: World, **fields: Any) -> None:
    live = w.kube.peek("ModelDeployment", "digits")
    live["spec"].update(fields)
    w.kube.put(live)


def annotate(w: World, **request: str) -> None:
    live = w.kube.peek("ModelDeployment", "digits")
    annotations = live["metadata"].setdefault("annotations", {})
    annotations.clear()
    if request:
        annotations["modeldeployment.dev/request"] = json.dumps(request)
    w.kube.put(live)


def lose_status(w: World) -> None:
    live = w.kube.peek("ModelDeployment", "digits")
    live.pop("status")
    w.kube.put(live)


async def serving(w: World) -> str:
    """Up to a first revision at rest; its name."""
    w.create()
    await asyncio.sleep(1)
    await w.until("Idle")
    return stable(w)


async def in_canary(w: World) -> None:
    w.roll_out(2)
    await w.until_true(lambda: len(w.weights) == 2)
    await asyncio.sleep(3)


async def rolled_back(w: World) -> str:
    """A second revision that fails; its name."""
    w.roll_out(2)
    w.bad_share = 0.5
    await w.until("RolledBack")
    revision: str = w.status["rolledBack"][-1]["revision"]
    return revision


async def test_i12_a_suspended_candidate_that_fails_goes_off_the_route() -> None:
    async with running() as w:
        await serving(w)
        await in_canary(w)
        edit(w, suspend=True)
        w.bad_share = 0.9
        await asyncio.sleep(60)
        assert len(w.weights[-1]) == 1


async def test_i12_a_suspended_bake_is_judged() -> None:
    async with running() as w:
        one = await serving(w)
        edit(w, rollout={**ROLLOUT, "bake": {"duration": "1h"}})
        w.roll_out(2)
        await w.until("Baking")
        await asyncio.sleep(3)
        edit(w, suspend=True)
        w.bad_share = 0.9
        await asyncio.sleep(60)
        assert w.weights[-1] == {one: 100}


@pytest.mark.parametrize("how", ["superseded", "rolled back"])
async def test_s28_no_pod_goes_before_the_gateway_has_taken_the_lower_weight(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = World()
    async with running(w):
        await serving(w)
        await in_canary(w)
        # its controller is away, and its proxies go on with the weights of before
        monkeypatch.setattr(w, "_gateway", lambda _: None)
        if how == "superseded":
            w.roll_out(1)
        else:
            w.bad_share = 0.5
        await asyncio.sleep(30)
        assert len(w.kube.names("Deployment")) == 2


async def test_s54_a_request_is_not_carried_out_again_after_the_status_was_lost() -> None:
    async with running() as before:
        await serving(before)
        two = await rolled_back(before)
        annotate(before, id="1", action="retry", revision=two)
        await before.until("Progressing")
        await before.until("RolledBack")
        await asyncio.sleep(30)
    lose_status(before)
    async with running() as w:
        w.bad_share = 0.5
        w.take_over(before.kube)
        await asyncio.sleep(40)
        assert all(two not in weights for weights in w.weights)


async def test_s54_a_rollback_that_only_the_route_knows_of_stands() -> None:
    async with running() as before:
        one = await serving(before)
        before.roll_out(2)
        await before.until("Baking")
        await asyncio.sleep(5)
        before.kube.fail = lambda call, _: ServerError(call) if "status" in call else None
        before.bad_share = 0.5
        await before.until_true(lambda: before.weights[-1] == {one: 100})
        await asyncio.sleep(1)
    before.kube.fail = lambda *_: None
    lose_status(before)
    async with running() as w:
        w.bad_share = 0.5
        w.take_over(before.kube)
        await asyncio.sleep(60)
        assert w.weights[-1] == {one: 100}
        (entry,) = w.status["rolledBack"]
        assert entry["reason"] == "AnalysisFailed"
        assert "errors" in entry["message"]
        assert len(w.weights) == 1, "it is not tried again"


async def test_s54_a_promotion_that_no_record_tells_of_is_no_rollback() -> None:
    async with running() as before:
        await serving(before)
        await rolled_back(before)  # its mark stays on the route
        before.bad_share = 0
        before.kube.fail = lambda call, _: (
            ServerError(call) if call == "status ModelRevision" else None
        )
        before.roll_out(3)
        await before.until("Baking")
        three = stable(before)
        await before.until_true(
            lambda: before.kube.peek("Service", "digits")["spec"]["selector"][REVISION] == three
        )
    before.kube.fail = lambda *_: None
    record = before.kube.peek("ModelRevision", three)
    assert "promotedTime" not in record.get("status", {})
    lose_status(before)
    async with running() as w:
        w.take_over(before.kube)
        await asyncio.sleep(10)
        assert stable(w) == three
        assert three not in [entry["revision"] for entry in w.status["rolledBack"]]


async def test_s54_a_revision_that_was_promoted_after_its_rollback_is_not_refused() -> None:
    async with running() as before:
        await serving(before)
        two = await rolled_back(before)
        before.bad_share = 0
        annotate(before, id="1", action="retry", revision=two)
        await before.until_true(lambda: stable(before) == two)
        await before.until("Idle")
        annotate(before)
        before.roll_out(3)
        await before.until_true(lambda: stable(before) != two)
        await before.until("Idle")
        await asyncio.sleep(5)
        before.roll_out(2)
        await asyncio.sleep(3)
    lose_status(before)
    async with running() as w:
        w.take_over(before.kube)
        await asyncio.sleep(100)
        assert stable(w) == two


async def test_s44_suspended_time_is_no_missing_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World()
    frozen: list[float] = []

    async def query(asked: Query, *, timeout_s: float) -> Samples:
        del timeout_s
        time = frozen[0] if frozen else w.now()
        count = round(10 * (time - NOW)) if asked.text == "total" else 0
        return Samples((Series(((POD_LABEL, "a"),), count),))

    monkeypatch.setattr(w, "query", query)
    async with running(w):
        await serving(w)
        rollout = json.loads(json.dumps(ROLLOUT))
        rollout["analysis"]["onInsufficient"] = {"hold": "60s", "then": "Rollback"}
        rollout["steps"][0]["setWeight"]["duration"] = "30s"
        edit(w, rollout=rollout)
        await in_canary(w)
        frozen.append(w.now())
        await w.until("Held")
        edit(w, suspend=True)
        await asyncio.sleep(600)
        edit(w, suspend=False)
        await asyncio.sleep(5)
        assert w.status["rollout"]["state"] == "Held"
