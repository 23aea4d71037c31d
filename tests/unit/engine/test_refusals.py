"""What the API refuses for one object keeps nothing else from being looked after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from model_operator.adapters.kube import ForbiddenError, KubeError, ServerError
from tests.unit.engine.played_engine import World, running, stable

pytestmark = pytest.mark.looptime
QUOTA = ForbiddenError("exceeded quota: objects, requested: 1, used: 10, limited: 10")


@asynccontextmanager
async def serving() -> AsyncIterator[World]:
    """Given a model that serves."""
    async with running() as played:
        played.create()
        await asyncio.sleep(1)
        await played.until("Idle")
        await asyncio.sleep(5)
        yield played


def stalled(world: World) -> tuple[str, str, str]:
    found = next(c for c in world.status["conditions"] if c["type"] == "Stalled")
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize("error", [QUOTA, ServerError("500")])
@pytest.mark.parametrize("call", ["create ModelRevision", "apply Deployment", "apply Service"])
async def test_the_route_is_repaired_although_a_candidate_cannot_be_created(
    call: str, error: KubeError
) -> None:
    async with serving() as world:
        old = stable(world)
        # given a new revision of which an object cannot be created
        world.kube.fail = lambda asked, _: error if asked == call else None
        world.roll_out(2)
        await asyncio.sleep(30)
        # when the route is deleted
        world.kube.remove("HTTPRoute", "digits")
        await asyncio.sleep(0.5)
        # then it is back at once
        assert world.kube.names("HTTPRoute") == ["digits"]
        # and when the API takes the object, the rollout goes its way
        world.kube.fail = lambda *_: None
        await world.until("Baking")
        assert stable(world) != old
        assert world.weights[:2] == [{old: 100}, {old: 90, stable(world): 10}]
        await asyncio.sleep(15)
        assert stalled(world)[0] == "False"


async def test_a_refusal_is_told_until_it_is_mended_and_costs_no_writes() -> None:
    async with serving() as world:
        world.kube.fail = lambda call, _: QUOTA if call == "create ModelRevision" else None
        world.roll_out(2)
        await asyncio.sleep(10)
        assert stalled(world)[:2] == ("True", "ObjectRefused")
        assert "exceeded quota" in stalled(world)[2]
        # when it stays refused, it is only tried again
        world.kube.calls.clear()
        await asyncio.sleep(60)
        assert {call for call in world.kube.calls if not call.startswith(("get", "list"))} == {
            "create ModelRevision"
        }
        # and nothing that it meets keeps stable from being looked after
        world.kube.remove("Deployment", stable(world))
        await asyncio.sleep(1)
        assert stable(world) in world.kube.names("Deployment")


async def test_a_refused_service_of_stable_does_not_keep_what_is_over() -> None:
    async with serving() as world:
        # given a promotion after which the Service for clients inside the cluster cannot be written
        old = stable(world)
        world.roll_out(2)
        await world.until("Baking")
        service = world.kube.peek("Service", "digits")
        service["metadata"]["ownerReferences"] = []
        world.kube.put(service)
        # then the former revision is let go all the same
        await world.until("Idle")
        await asyncio.sleep(30)
        assert old not in world.kube.names("Deployment")
        assert stalled(world)[:2] == ("True", "NameTaken")
