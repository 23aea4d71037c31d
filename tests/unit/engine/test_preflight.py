"""Signatures on their way from the pods into the records and the decision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from model_operator.api.parse import to_manifest
from model_operator.api.types import Signature, Tensor
from model_operator.core.revision import revision_name
from model_operator.engine.store import Key
from tests.builders import digest
from tests.unit.engine.played_engine import KEY, World, running, stable

PLAIN = Signature(inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 64)),))
OTHER = Signature(inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 32)),))
OLD, NEW = (revision_name("digits", digest(seed), {}) for seed in (1, 2))

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Given a model that serves and tells its signature."""
    async with running() as played:
        played.pod_ip = "10.0.0.1"
        played.told = {OLD: PLAIN, NEW: PLAIN}
        played.create()
        await asyncio.sleep(1)
        await played.until("Idle")
        yield played


def record(world: World, revision: str) -> dict[str, Any]:
    found: dict[str, Any] = world.kube.peek("ModelRevision", revision).get("status") or {}
    return found


async def test_the_first_ready_pod_is_asked_once_and_the_answer_recorded(world: World) -> None:
    await asyncio.sleep(100)
    assert stable(world) == OLD
    assert record(world, OLD)["signature"] == to_manifest(PLAIN)
    assert world.asked == [OLD]
    assert world.errors == []


async def test_a_compatible_model_passes_and_its_record_says_so(world: World) -> None:
    world.roll_out(2)
    await world.until("Baking")
    assert stable(world) == NEW
    assert record(world, NEW)["signature"] == to_manifest(PLAIN)
    assert record(world, NEW)["preflight"]["passed"] is True
    assert record(world, NEW)["preflight"]["reason"] == ""


async def test_another_signature_is_refused_at_weight_0(world: World) -> None:
    world.told[NEW] = OTHER
    world.roll_out(2)
    await world.until("RolledBack")
    await asyncio.sleep(5)
    assert world.status["rollout"]["reason"] == "SignatureChanged"
    assert world.weights == [{OLD: 100}]
    assert record(world, NEW)["preflight"]["passed"] is False
    assert record(world, NEW)["preflight"]["reason"] == "SignatureChanged"
    assert record(world, NEW)["signature"] == to_manifest(OTHER)


async def test_a_slow_answer_is_waited_for(world: World) -> None:
    world.answer_s = 3.0
    world.told[NEW] = OTHER
    world.roll_out(2)
    await world.until("RolledBack")
    assert world.weights == [{OLD: 100}]


async def test_a_stable_revision_that_never_told_is_asked_again_for_each_rollout() -> None:
    async with running() as world:
        # given a stable revision whose pods do not tell, and that was given up
        world.pod_ip = "10.0.0.1"
        world.create()
        await asyncio.sleep(20)
        given_up = len(world.asked)
        await asyncio.sleep(100)
        assert len(world.asked) == given_up, "nobody is asked for ever"
        # when its pods tell by the time a candidate comes
        world.told = {OLD: PLAIN, NEW: OTHER}
        world.roll_out(2)
        # then the two are compared
        await world.until("RolledBack")
        assert world.status["rollout"]["reason"] == "SignatureChanged"


@pytest.mark.parametrize("told", [{}, {OLD: PLAIN}, {NEW: OTHER}])
async def test_what_cannot_be_read_delays_a_rollout_and_no_more(
    told: dict[str, Signature],
) -> None:
    async with running() as world:
        world.pod_ip = "10.0.0.1"
        world.told = told
        world.create()
        await asyncio.sleep(20)
        began = asyncio.get_running_loop().time()
        world.roll_out(2)
        await world.until_true(lambda: len(world.weights) > 1)
        assert 4 < asyncio.get_running_loop().time() - began < 8
        await world.until("Baking")
        await asyncio.sleep(1)
        preflight = record(world, NEW)["preflight"]
        assert (preflight["passed"], preflight["reason"]) == (True, "SignatureUnknown")


async def test_a_defect_while_reading_delays_no_rollout(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_key: Key, _revision: str) -> Signature:
        raise AssertionError("a defect")

    monkeypatch.setattr(world.signatures, "ask", broken)
    world.roll_out(2)
    await world.until("Baking")


async def test_an_operator_that_comes_after_knows_it_from_the_record(world: World) -> None:
    async with running() as other:
        # given an operator that took over and that no pod answers
        other.pod_ip = "10.0.0.1"
        other.take_over(world.kube)
        await asyncio.sleep(1)
        # then what it needs of stable is in the record
        known = other.signatures.signatures(KEY, other.reconciler._subject(KEY).status)  # type: ignore[union-attr] # it is there
        assert known.known == {OLD: PLAIN}
        assert other.asked == []


async def test_a_deleted_model_deployment_is_forgotten(world: World) -> None:
    world.answer_s = 50.0
    world.roll_out(2)
    await world.until_true(lambda: NEW in world.asked)
    world.kube.remove("ModelDeployment", "digits")
    await asyncio.sleep(1)
    assert world.signatures._readings == {}
