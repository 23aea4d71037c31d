"""I12: one call that fails, in whatever way, delays a rollback by no more than a moment."""

from __future__ import annotations

import asyncio

import pytest

from model_operator.adapters.kube import ConflictError, KubeError, ServerError, ThrottledError
from model_operator.core.verdict import Outcome, Verdict
from model_operator.engine.store import Key
from tests.unit.engine.played_engine import World, running, stable, wall_time

pytestmark = pytest.mark.looptime

LONGEST_DELAY_S = 2.0
"""From the failing verdict to weight 0: a hanging call keeps it for its patience of a second, a
hanging write of the route for the deadline of one attempt, and a throttled one for the second that
the server asked for."""
FAILURES: list[KubeError | None] = [
    None,
    ConflictError("409"),
    ThrottledError("429", retry_after_s=1.0),
    ServerError("500"),
]


class Judged(World):
    """Remembers when the candidate failed."""

    failed_at = 0.0

    def _verdict_changed(self, key: Key, verdict: Verdict) -> None:
        if verdict.outcome is Outcome.FAIL:
            self.failed_at = wall_time()
        super()._verdict_changed(key, verdict)


async def delay_s(k: int, failure: KubeError | None) -> tuple[float, bool]:
    """From the failing verdict to weight 0 when the k-th call of a rollout fails.

    Returns:
        The delay, seconds, and whether there was such a call before the rollback.
    """
    async with running(world := Judged()) as _:
        world.create()
        await asyncio.sleep(1)
        await world.until("Idle")
        old, before = stable(world), len(world.kube.calls)
        if failure is None:
            world.kube.hangs = lambda _call, number: number == before + k
        else:
            world.kube.fail = lambda _call, number: failure if number == before + k else None
        world.bad_share = 0.5
        world.roll_out(2)
        await world.until_true(lambda: len(world.weights) > 1)
        async with asyncio.timeout(120):
            while world.weights[-1] != {old: 100}:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
        assert world.failed_at
        return wall_time() - world.failed_at, len(world.kube.calls) >= before + k


@pytest.mark.parametrize("failure", FAILURES, ids=["hang", "409", "429", "500"])
async def test_one_failed_call_does_not_delay_a_rollback(failure: KubeError | None) -> None:
    delays: dict[int, float] = {}
    for k in range(1, 500):
        delays[k], was_hit = await delay_s(k, failure)
        if not was_hit:
            break
    assert len(delays) > 20
    assert max(delays.values()) <= LONGEST_DELAY_S, delays
