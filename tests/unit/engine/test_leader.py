"""One replica leads: whoever holds the lease, as long as its own clock says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from model_operator.adapters.kube import (
    ConflictError,
    ForbiddenError,
    KubeError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from model_operator.adapters.lease import Claim, Lease, LeaseLostError
from model_operator.engine.leader import Election, Term
from model_operator.settings import LeaseSettings

pytestmark = pytest.mark.looptime

SETTINGS = LeaseSettings(duration_s=12, renew_s=8.0, retry_s=2.0)


class FakeLease:
    """`Leases` in memory.

    Attributes:
        fail: Asked before each call, by its name; what it returns is raised.
        lose_answers: Whether writes are carried out and then fail.
        hang: Whether calls are never answered.
        writes: Holders that were written, in order.
    """

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.fail: Callable[[str], KubeError | None] = lambda _call: None
        self.lose_answers = False
        self.hang = False
        self.writes: list[str] = []
        self._version = 0

    @property
    def holder(self) -> str | None:
        return self.lease.claim.holder if self.lease else None

    async def read(self) -> Lease | None:
        await self._begin("read")
        return self.lease

    async def write(self, claim: Claim, over: Lease | None) -> Lease:
        await self._begin("write")
        if over != self.lease:
            raise ConflictError("another version is there")
        self._version += 1
        self.lease = Lease({"metadata": {"resourceVersion": str(self._version)}}, claim)
        self.writes.append(claim.holder)
        if self.lose_answers:
            raise UnreachableError("reset after it was written")
        return self.lease

    async def _begin(self, call: str) -> None:
        await asyncio.sleep(0.01)
        if self.hang:
            await asyncio.Event().wait()
        error = self.fail(call)
        if error is not None:
            raise error


def election(lease: FakeLease, identity: str, **settings: Any) -> Election:
    loop = asyncio.get_running_loop()
    configured = replace(SETTINGS, identity=identity, **settings)
    return Election(lease, configured, clock=loop.time)


def time_s() -> float:
    return asyncio.get_running_loop().time()


def leads(one: Election) -> bool:
    try:
        one.check()
    except LeaseLostError:
        return False
    return True


async def led(one: Election, work: Coroutine[Any, Any, None]) -> None:
    """Do something while the lease is kept."""
    keeping = asyncio.create_task(one.keep())
    try:
        await work
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_where_there_is_no_lease_the_first_to_come_leads_at_once() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    assert not leads(first)
    # when two come
    begun = time_s()
    term = await first.acquire()
    following = asyncio.create_task(second.acquire())
    await asyncio.sleep(5)
    # then one leads
    assert time_s() - begun < 5.1
    assert term == Term("0-a", follows_loss=False)
    assert leads(first)
    assert not leads(second)
    following.cancel()


async def test_a_leader_that_renews_leads_for_ever() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    await first.acquire()
    following = asyncio.create_task(second.acquire())
    await led(first, asyncio.sleep(3600))
    assert set(lease.writes) == {"a"}
    assert leads(first)
    following.cancel()


async def test_a_leader_that_is_gone_is_replaced_after_its_time_and_one_look() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    await first.acquire()
    # when the leader renews no more, while another one looks
    renewed = time_s()
    term = await second.acquire()
    # then that one leads, and knows that the first may have left something behind
    assert SETTINGS.duration_s <= time_s() - renewed <= SETTINGS.duration_s + SETTINGS.retry_s
    assert term == Term("1-b", follows_loss=True)
    assert not leads(first)


async def test_no_two_lead_at_a_time_whenever_the_leader_stops_renewing() -> None:
    for renewals in range(8):
        lease = FakeLease()
        first, second = election(lease, "a"), election(lease, "b")
        await first.acquire()
        following = asyncio.create_task(second.acquire())
        await led(first, asyncio.sleep(0.7 + renewals * 1.3))
        while not following.done():
            assert not (leads(first) and leads(second))
            await asyncio.sleep(0.1)
        assert not leads(first)
        assert leads(second)


async def test_a_lease_that_is_given_back_is_taken_at_the_next_look() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    await first.acquire()
    following = asyncio.create_task(second.acquire())
    await led(first, asyncio.sleep(30))
    # when the leader ends in order
    released = time_s()
    await first.release()
    assert not leads(first)
    # then the other leads soon, and has nothing to fear from the first
    term = await following
    assert time_s() - released <= SETTINGS.retry_s + 0.1
    assert term == Term("1-b", follows_loss=False)


async def test_a_pod_that_restarts_need_not_wait_for_its_own_lease() -> None:
    lease = FakeLease()
    await election(lease, "a").acquire()
    begun = time_s()
    term = await election(lease, "a").acquire()
    assert time_s() - begun < 0.1
    assert term == Term("1-a", follows_loss=True)


async def test_processes_without_a_name_never_take_each_other_for_themselves() -> None:
    lease = FakeLease()
    await election(lease, "").acquire()
    begun = time_s()
    await election(lease, "").acquire()
    assert time_s() - begun >= SETTINGS.duration_s


@pytest.mark.parametrize(
    "error",
    [
        ConflictError("409"),
        ThrottledError("429"),
        ServerError("500"),
        UnreachableError("reset"),
        ForbiddenError("403"),
    ],
)
async def test_a_renewal_that_fails_is_tried_again_until_the_deadline(error: KubeError) -> None:
    lease = FakeLease()
    first = election(lease, "a")
    await first.acquire()
    begun = time_s()
    # when every call fails for less than the deadline
    lease.fail = lambda _call: error if time_s() - begun < 5 else None
    # then it leads on
    await led(first, asyncio.sleep(60))
    assert leads(first)


@pytest.mark.parametrize("hang", [False, True])
async def test_a_leader_that_is_cut_off_gives_up_before_anybody_else_leads(hang: bool) -> None:  # noqa: FBT001 - parametrised
    lease = FakeLease()
    first = election(lease, "a")
    await first.acquire()
    begun = time_s()
    # when no call is answered any more
    lease.hang = hang
    lease.fail = lambda _call: UnreachableError("refused")
    with pytest.raises(LeaseLostError):
        await first.keep()
    # then it ends at its deadline, not when a call happens to time out
    assert time_s() - begun == pytest.approx(SETTINGS.renew_s, abs=0.1)
    assert not leads(first)


async def test_an_answer_that_is_lost_is_no_loss() -> None:
    lease = FakeLease()
    first = election(lease, "a")
    await first.acquire()
    # when renewals are carried out, but the answers get lost
    lease.lose_answers = True
    await led(first, asyncio.sleep(5))
    lease.lose_answers = False
    await led(first, asyncio.sleep(60))
    # then it sees that it is its own lease
    assert leads(first)


async def test_a_lease_that_somebody_else_has_ends_the_term_at_once() -> None:
    lease = FakeLease()
    first = election(lease, "a")
    await first.acquire()
    assert lease.lease is not None
    await lease.write(replace(lease.lease.claim, holder="b"), lease.lease)
    begun = time_s()
    with pytest.raises(LeaseLostError, match="b holds the lease"):
        await first.keep()
    # the conflict, and the look that explains it
    assert time_s() - begun <= 2 * SETTINGS.retry_s + 0.1
    assert not leads(first)


async def test_a_second_process_with_the_same_name_ends_the_first() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "a")
    await first.acquire()
    await second.acquire()
    with pytest.raises(LeaseLostError):
        await first.keep()
    assert leads(second)


async def test_a_process_that_was_stopped_does_not_lead_when_it_goes_on() -> None:
    lease = FakeLease()
    stopped_s = 0.0
    loop = asyncio.get_running_loop()
    first = Election(lease, replace(SETTINGS, identity="a"), clock=lambda: loop.time() + stopped_s)
    await first.acquire()
    # when the process is stopped for longer than its term, and nobody came after it
    stopped_s = 9.0
    # then it writes nothing, and does not renew what is still its own lease
    assert not leads(first)
    writes = list(lease.writes)
    with pytest.raises(LeaseLostError):
        await first.keep()
    assert lease.writes == writes


async def test_a_deleted_lease_does_not_make_a_second_leader() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    await first.acquire()
    following = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    # when somebody deletes the lease
    lease.lease = None
    # then its holder makes it anew, before any other one may
    await led(first, asyncio.sleep(30))
    assert lease.holder == "a"
    assert leads(first)
    assert not following.done()
    following.cancel()


async def test_a_deleted_lease_of_a_dead_leader_is_made_anew_after_its_time() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    await first.acquire()
    renewed = time_s()
    following = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    lease.lease = None
    term = await following
    assert time_s() - renewed >= SETTINGS.duration_s
    assert term == Term("1-b", follows_loss=True)


async def test_the_duration_that_the_holder_wrote_counts_not_the_follower_s_own() -> None:
    lease = FakeLease()
    await election(lease, "a", duration_s=60, renew_s=40.0).acquire()
    begun = time_s()
    await election(lease, "b").acquire()
    assert time_s() - begun >= 60


async def test_a_lease_that_is_lost_is_not_given_back() -> None:
    lease = FakeLease()
    first, second = election(lease, "a"), election(lease, "b")
    await first.acquire()
    await second.acquire()
    await first.release()
    assert lease.holder == "b"


async def test_of_two_that_see_a_free_lease_one_takes_it() -> None:
    lease = FakeLease()
    both = [election(lease, "a"), election(lease, "b")]
    takers = [asyncio.create_task(one.acquire()) for one in both]
    await asyncio.wait(takers, timeout=5)
    assert [leads(one) for one in both].count(True) == 1
    for taker in takers:
        taker.cancel()


async def test_it_is_told_that_another_one_leads() -> None:
    lease = FakeLease()
    await election(lease, "a").acquire()
    told: list[float] = []
    loop = asyncio.get_running_loop()
    second = Election(
        lease,
        replace(SETTINGS, identity="b"),
        following=lambda: told.append(loop.time()),
        clock=loop.time,
    )
    following = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    assert len(told) == 1
    following.cancel()
