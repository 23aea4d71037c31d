"""Releases that overlap, ways back, and steps edited in mid-canary, against a real API server.

The order of all weights that the route ever had is compared as a whole, so nothing else was there.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.apiserver.engine_world import Behaviour, World, digest
from tests.apiserver.releases import (
    LONG,
    ONE,
    PAUSE,
    THREE,
    TWO,
    intact,
    release,
    serve,
    to,
    until_deployed,
    until_ready_pods,
)

pytestmark = pytest.mark.timeout(90)


async def baking(played: World, *seeds: int) -> None:
    """Given that these were promoted, one after the other."""
    for seed in seeds:
        await release(played, seed)
        await played.until_state("Baking")


async def candidate(played: World) -> str:
    """The present candidate; empty when there is none."""
    return str((await played.status()).get("candidate", {}).get("revision", ""))


async def until_candidate(played: World, revision: str) -> None:
    async def introduced() -> bool:
        return await candidate(played) == revision

    await played.until(f"{revision} is the candidate", introduced)


# ------------------------------------------------------------------------------ a third revision


async def test_s20_a_third_revision_gets_nothing_before_the_second_has_left_the_route(
    played: World,
) -> None:
    # given a candidate at 25 %
    await serve(played, to(10), to(25), PAUSE)
    await release(played, 2)
    await played.until_state("Paused")
    # when the spec names a third, and the gateway takes over no route for a while
    played.gateway.stands_still = True
    await release(played, 3)
    # then the second has weight 0 at once
    canary = [{ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 75, TWO: 25}]
    await played.until_weights(*canary, {ONE: 100})
    # and as long as requests may still reach it, it keeps its pods, and the ready third gets none
    await until_ready_pods(played, THREE, 2)
    answered = played.answered[TWO]
    await asyncio.sleep(1.0)
    assert played.answered[TWO] > answered
    assert played.weights_seen == [*canary, {ONE: 100}]
    assert played.answered[THREE] == 0
    intact(played, ONE, TWO)
    # when the gateway has taken it over
    played.gateway.stands_still = False
    # then the third begins with the first step, and the second is removed
    await played.until_weights(*canary, {ONE: 100}, {ONE: 90, THREE: 10}, {ONE: 75, THREE: 25})
    await played.until_state("Paused")
    await until_deployed(played, ONE, THREE)
    await until_ready_pods(played, ONE, 2)
    intact(played, ONE, THREE)


async def test_s21_a_third_revision_in_the_bake_gets_a_canary_of_its_own(played: World) -> None:
    # given a second revision that bakes
    await serve(played, to(10), to(50), bake=LONG)
    await baking(played, 2)
    promotion = [{ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100}]
    await played.until_weights(*promotion)
    # when a third comes
    await release(played, 3)
    # then users go to it from the second by its steps, and never to the first again
    await played.until_weights(*promotion, {TWO: 90, THREE: 10}, {TWO: 50, THREE: 50}, {THREE: 100})

    # and each of its weights was judged
    async def judged() -> bool:
        evidence = (await played.revisions())[THREE]["status"]["evidence"]
        return {entry["step"] for entry in evidence if entry["verdict"] == "pass"} >= {0, 1}

    await played.until("evidence of both steps", judged)
    # and its first weight has ended the bake; what was analysed was never restarted
    await until_deployed(played, TWO, THREE)
    intact(played, TWO, THREE)


async def test_s21_a_third_revision_waits_until_the_promotion_has_reached_the_gateway(
    played: World,
) -> None:
    # given a promotion whose route the gateway has not taken over yet
    await serve(played, to(50), PAUSE, bake=LONG)
    await release(played, 2)
    await played.until_state("Paused")
    played.gateway.stands_still = True
    await played.ask("promote", TWO)
    promotion = [{ONE: 100}, {ONE: 50, TWO: 50}, {TWO: 100}]
    await played.until_weights(*promotion)
    # when a third comes
    await release(played, 3)
    await until_ready_pods(played, THREE, 2)
    answered = played.answered[ONE]
    await asyncio.sleep(1.0)
    # then it gets nothing, and those that requests still reach keep their pods
    assert played.answered[ONE] > answered
    assert played.weights_seen == promotion
    assert played.answered[THREE] == 0
    intact(played, ONE, TWO)
    # until the gateway has taken over the promotion
    played.gateway.stands_still = False
    await played.until_weights(*promotion, {TWO: 50, THREE: 50})
    await until_deployed(played, TWO, THREE)
    intact(played, TWO, THREE)


async def test_s21_when_the_baking_one_fails_the_first_comes_back_and_the_third_waits(
    played: World,
) -> None:
    # given a second revision that bakes, and a third whose pods do not get ready
    await serve(played, to(10), to(50), bake=LONG)
    await baking(played, 2)
    played.behaviours[digest(3)] = Behaviour(ready=False)
    await release(played, 3)
    await until_candidate(played, THREE)
    # when the second begins to fail
    played.behaviours[digest(2)].error_share = 0.5
    # then the first has everything at once, from the pods that it always had
    back = [{ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100}, {ONE: 100}]
    await played.until_weights(*back)

    # which is said a moment after it is done
    async def said() -> bool:
        return bool((await played.status()).get("rolledBack"))

    await played.until("the rollback is said", said)
    (rolled_back,) = (await played.status())["rolledBack"]
    assert (rolled_back["revision"], rolled_back["reason"]) == (TWO, "AnalysisFailed")
    # and the third waits, and begins with the first step when it is ready
    assert await candidate(played) == THREE
    played.behaviours[digest(3)].ready = True
    await played.until_weights(*back, {ONE: 90, THREE: 10}, {ONE: 50, THREE: 50}, {THREE: 100})
    await until_deployed(played, ONE, THREE)
    intact(played, ONE, THREE)


# ------------------------------------------------------------------------------------ going back


async def test_s23_back_to_n_minus_2_that_is_still_warm_skips_the_steps(played: World) -> None:
    # given a second revision that bakes, and a third that is not ready yet
    await serve(played, to(10), to(50), bake=LONG)
    await baking(played, 2)
    played.behaviours[digest(3)] = Behaviour(ready=False)
    await release(played, 3)
    await until_candidate(played, THREE)
    # when the spec goes back to the first
    await release(played, 1)
    # then it has everything in one go, from the pods that it always had
    promotion = [{ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100}]
    await played.until_weights(*promotion, {ONE: 100})
    await played.until_state("Idle")
    await until_deployed(played, ONE)
    intact(played, ONE)
    # and none of the others is held against them
    assert not (await played.status()).get("rolledBack")


async def test_s23_the_weight_of_a_half_warm_revision_follows_its_ready_pods(
    played: World,
) -> None:
    # given a former revision that is warm with one pod of two, and no room for more
    await serve(played, to(10), bake={**LONG, "replicas": 1})
    await baking(played, 2)
    await until_ready_pods(played, ONE, 1)
    warm = {pod.name for pod in played.pods.values() if pod.revision == ONE}
    played.behaviours[digest(1)].most_ready = 1
    # when the spec goes back to it
    await release(played, 1)
    # then it gets what its one pod can carry
    half = [{ONE: 100}, {ONE: 90, TWO: 10}, {TWO: 100}, {ONE: 50, TWO: 50}]
    await played.until_weights(*half)
    await asyncio.sleep(1.0)
    assert played.weights_seen == half
    # and all when there is another one, with the first never restarted
    played.behaviours[digest(1)].most_ready = None
    await played.until_weights(*half, {ONE: 100})
    await until_deployed(played, ONE)
    assert warm <= set(played.pods)
    assert not played.lost


async def test_s23_back_to_a_revision_that_is_gone_is_a_rollout_like_any_other(
    played: World,
) -> None:
    # given a second revision, whose bake is over
    await serve(played, to(10), to(50), bake={"duration": "200ms"})
    await release(played, 2)
    await until_deployed(played, TWO)
    # when the spec goes back to the first
    await release(played, 1)
    # then it takes every step
    there = [{ONE: 100}, {ONE: 90, TWO: 10}, {ONE: 50, TWO: 50}, {TWO: 100}]
    await played.until_weights(*there, {TWO: 90, ONE: 10}, {TWO: 50, ONE: 50}, {ONE: 100})
    assert not played.lost


# --------------------------------------------------------------------------- edited in mid-canary


async def test_s24_edited_steps_raise_no_weight_without_a_verdict(played: World) -> None:
    # given a candidate at 25 %, without requests from now on
    await serve(played, to(5), to(25), PAUSE)
    await release(played, 2)
    await played.until_state("Paused")
    played.requests_per_s = 0
    # when its weight is no longer among the steps
    edited = [to(10), to(40)]
    await played.change(lambda mdep: mdep["spec"]["rollout"].update(steps=edited))
    # then it goes down to the next lower one, and no further up without evidence
    canary = [{ONE: 100}, {ONE: 95, TWO: 5}, {ONE: 75, TWO: 25}, {ONE: 90, TWO: 10}]
    await played.until_weights(*canary)
    status = await played.until_state("Held")
    assert status["rollout"]["reason"] == "InsufficientData"
    await asyncio.sleep(1.0)
    assert played.weights_seen == canary
    # and on by the new steps when there are requests again
    played.requests_per_s = 100
    await played.until_weights(*canary, {ONE: 60, TWO: 40}, {TWO: 100})
    intact(played, ONE, TWO)
