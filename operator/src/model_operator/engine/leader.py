"""Which of the operator's replicas leads: the one that holds the Lease.

As in client-go, a follower waits until the Lease has not changed for as long as its holder may
trust in it, and a leader gives up earlier than that. Both are measured on the local clock from what
this process has seen or sent itself: the times in the Lease are those of other machines' clocks.

It differs from client-go where that leaves two leaders at a time: a deleted Lease does not end its
holder's term, and a leader whose time has passed never renews, even if nobody came after it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NoReturn, Protocol

from model_operator.adapters.kube import ConflictError, KubeError
from model_operator.adapters.lease import Claim, Lease, LeaseLostError, Leases
from model_operator.settings import LeaseSettings

logger = logging.getLogger(__name__)

_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Term:
    """A time of leading.

    Attributes:
        name: No other term has it.
        follows_loss: Whether the leader before did not give the lease back: what it has begun to
            write may still arrive.
    """

    name: str
    follows_loss: bool


class Leadership(Protocol):
    """How a process comes to lead, and ceases to."""

    async def acquire(self) -> Term:
        """Wait until this process leads."""
        ...

    async def keep(self) -> NoReturn:
        """Go on leading until cancelled.

        Raises:
            LeaseLostError: This process does not lead any more.
        """
        ...

    def check(self) -> None:
        """Make sure that this process leads at this moment.

        Raises:
            LeaseLostError: It does not.
        """
        ...

    async def release(self) -> None:
        """Let another process lead at once; nothing may be written after this was called."""
        ...


class Alone:
    """`Leadership` of a process that knows that it is the only one."""

    async def acquire(self) -> Term:
        """Lead at once."""
        return Term("alone", follows_loss=False)

    async def keep(self) -> NoReturn:
        """Lead for ever."""
        while True:
            await asyncio.Event().wait()

    def check(self) -> None:
        """Nobody else can lead."""

    async def release(self) -> None:
        """Nobody waits for it."""


def boot_time_s() -> float:
    """Seconds since the machine started; they also pass while it, or this process, is stopped."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has it
    return time.clock_gettime(clock)


class Election:
    """`Leadership` by a Lease."""

    def __init__(
        self,
        leases: Leases,
        settings: LeaseSettings,
        *,
        following: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_time_s,
    ) -> None:
        """Create it; nothing is read before `acquire`.

        Args:
            leases: The Lease.
            settings: Its times, and who this process is.
            following: Told when somebody else was found to lead.
            clock: Seconds that pass also while this process is stopped.
        """
        self._leases = leases
        self._settings = settings
        self._following = following
        self._clock = clock
        # NB: only a pod's name says that whoever had it before is gone: its container ended
        self._identity = settings.identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._seen: Claim | None = None
        self._free_at = _NEVER
        self._own: Lease | None = None
        self._term = 0
        self._ends_at = _NEVER

    async def acquire(self) -> Term:
        """Look at the lease again and again until this process holds it."""
        while True:
            try:
                term = await self._try()
            except KubeError as error:
                logger.warning("the lease cannot be taken: %s", error)
            else:
                if term is not None:
                    return term
            retry_s, free_s = self._settings.retry_s, self._free_at - self._clock()
            await asyncio.sleep(min(retry_s, free_s) if free_s > 0 else retry_s)

    async def keep(self) -> NoReturn:
        """Renew the lease; whatever fails is tried again as long as the term lasts."""
        while True:
            await asyncio.sleep(min(self._settings.retry_s, self._left_s()))
            self.check()
            try:
                async with asyncio.timeout(self._left_s()):
                    await self._renew()
            except LeaseLostError:
                self._ends_at = _NEVER
                raise
            except (KubeError, TimeoutError) as error:
                logger.warning("the lease was not renewed: %s", error or "no answer in time")

    def check(self) -> None:
        """Compare the term's end with the clock."""
        if self._left_s() <= 0:
            raise LeaseLostError("this process does not hold the lease any more")

    async def release(self) -> None:
        """Write into the lease that nobody holds it."""
        if self._left_s() <= 0:
            return
        self._ends_at = _NEVER
        try:
            lease = self._own or await self._leases.read()
            if lease is not None and self._is_own(lease.claim):
                # a second: readers of the Lease want a duration above 0
                free = replace(lease.claim, holder="", duration_s=1, renewed=_now())
                await self._leases.write(free, lease)
                logger.info("the lease is given back")
        except KubeError as error:
            logger.warning("the lease was not given back: %s", error)

    async def _try(self) -> Term | None:
        """Take the lease if it is free."""
        lease = await self._leases.read()
        self._look(lease)
        before = lease.claim if lease else self._seen
        own = before is not None and before.holder == self._identity
        if not own and self._clock() < self._free_at:
            self._following()
            return None
        begun, now = self._clock(), _now()
        number = before.transitions + 1 if before else 0
        claim = Claim(self._identity, self._settings.duration_s, number, now, now)
        try:
            written = await self._leases.write(claim, lease)
        except ConflictError:
            logger.info("somebody else took the lease")
            return None
        self._began(written, begun)
        self._term = number
        holder = before.holder if before else ""
        logger.info("%s leads, term %d, after %s", self._identity, number, holder or "nobody")
        return Term(f"{number}-{self._identity}", follows_loss=bool(holder))

    def _look(self, lease: Lease | None) -> None:
        """Note when the lease is free, from when a change of it was seen."""
        claim = lease.claim if lease else None
        # NB: a Lease that was deleted leaves its holder in office until the end of its time
        if claim is None or claim == self._seen:
            return
        if self._seen is None or claim.holder != self._seen.holder:
            logger.info("%s holds the lease", claim.holder or "nobody")
        self._seen = claim
        self._free_at = self._clock() + claim.duration_s if claim.holder else _NEVER

    async def _renew(self) -> None:
        """Write into the lease that this process still holds it."""
        # NB: from before the call: the lease may have been written long before the answer came
        begun = self._clock()
        lease, self._own = self._own, None  # after a failed write its outcome is not known
        if lease is None:
            lease = await self._leases.read()
        if lease is not None and not self._is_own(lease.claim):
            raise LeaseLostError(f"{lease.claim.holder or 'nobody'} holds the lease")
        now = _now()
        fresh = Claim(self._identity, self._settings.duration_s, self._term, now, now)
        claim = replace(lease.claim, renewed=now) if lease else fresh
        self._began(await self._leases.write(claim, lease), begun)

    def _began(self, lease: Lease, begun: float) -> None:
        self._own = lease
        self._ends_at = begun + self._settings.renew_s

    def _is_own(self, claim: Claim) -> bool:
        return (claim.holder, claim.transitions) == (self._identity, self._term)

    def _left_s(self) -> float:
        return self._ends_at - self._clock()


def _now() -> datetime:
    return datetime.now(UTC)
