"""The time of one process goes on evenly, whatever is done to the wall clock."""

from __future__ import annotations

import asyncio

import pytest

from model_operator.engine.clock import SteadyClock
from tests.builders import NOW
from tests.unit.engine.played_engine import World, running, stable


class Wall:
    """A wall clock that somebody sets.

    Attributes:
        set_by_s: How far it was set, seconds.
    """

    def __init__(self) -> None:
        self.set_by_s = 0.0

    def __call__(self) -> float:
        return NOW + self.steady() + self.set_by_s

    @staticmethod
    def steady() -> float:
        return asyncio.get_running_loop().time()


@pytest.mark.looptime
async def test_it_agrees_with_the_wall_clock_at_the_start() -> None:
    await asyncio.sleep(100)
    wall = Wall()
    clock = SteadyClock(wall, wall.steady)
    await asyncio.sleep(5)
    assert clock() == pytest.approx(NOW + 105)


@pytest.mark.looptime
@pytest.mark.parametrize("jump_s", [3600.0, -600.0])
async def test_a_jump_in_mid_step_neither_skips_nor_repeats_a_step(jump_s: float) -> None:
    # given a rollout in the middle of its first step of ten seconds
    wall = Wall()
    async with running(World(SteadyClock(wall, wall.steady))) as world:
        world.create()
        await asyncio.sleep(1)
        await world.until("Idle")
        old = stable(world)
        world.roll_out(2)
        await world.until_true(lambda: len(world.weights) == 2)
        begun = wall.steady()
        await asyncio.sleep(5)
        # when the wall clock is set
        wall.set_by_s = jump_s
        # then the step lasts as long as it would have, and the rollout goes on by its steps
        await world.until_true(lambda: len(world.weights) == 3)
        assert wall.steady() - begun == pytest.approx(10.0, abs=1.5)
        await world.until("Baking")
        baked = wall.steady()
        await world.until("Idle")
        assert wall.steady() - baked == pytest.approx(20.0, abs=1.5)
        new = stable(world)
        assert world.weights == [{old: 100}, {old: 90, new: 10}, {old: 50, new: 50}, {new: 100}]
        assert not world.status.get("rolledBack")
