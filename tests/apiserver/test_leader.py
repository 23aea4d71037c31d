"""S39: two real operator processes before a real API server, of which one leads.

Times of the lease are short where only the order of things matters.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from model_operator.adapters.kube import (
    DISRUPTION_BUDGET,
    ConflictError,
    load_configuration,
)
from model_operator.adapters.lease import Claim, LeaseClient
from model_operator.core.httproute import read_weights
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import Behaviour, World, digest, model_deployment, world
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.pass_through import Call, PassThrough, pass_through

pytestmark = pytest.mark.timeout(120)

TO_10: Final = {"setWeight": {"percent": 10, "duration": "100ms"}}
TO_50: Final = {"setWeight": {"percent": 50, "duration": "60s"}}
SHORT: Final = {
    "lease_seconds": "4",
    "lease_renew_seconds": "3",
    "lease_retry_seconds": "0.5",
}
SHORT_TAKEOVER_S: Final = 10.0
ACTUAL_TAKEOVER_S: Final = 20.0


@dataclass(slots=True)
class Replica:
    """A process and its way to the API."""

    process: OperatorProcess
    way: PassThrough


@pytest.fixture
async def played(controllers: ControlPlane, namespace: str) -> AsyncIterator[World]:
    async with world(controllers.kubeconfig, namespace) as around:
        around.requests_per_s = 100.0
        yield around


@asynccontextmanager
async def replicas(
    played: World, control_plane: ControlPlane, folder: Path, **settings: str
) -> AsyncIterator[tuple[Replica, Replica]]:
    """Given two replicas, of which the first leads."""
    async with AsyncExitStack() as running:
        both = []
        for name in ("first", "second"):
            way = await running.enter_async_context(
                pass_through(control_plane.kubeconfig, folder / f"{name}.yaml")
            )
            process = OperatorProcess(name, way.kubeconfig, played.namespace, **settings)
            running.callback(process.close)
            both.append(Replica(process, way))
        first, second = both
        first.process.start()
        await first.process.leads()
        second.process.start()
        await second.process.logged("first holds the lease")
        yield first, second


async def in_mid_canary(played: World) -> tuple[str, str]:
    """Given a rollout that waits at 10 %; stable and candidate."""
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["steps"] = [TO_10, {"pause": {}}]
    await played.create(manifest)
    old = await played.until_ready()
    await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
    status = await played.until_state("Paused")
    return old, status["candidate"]["revision"]


async def holder(played: World) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{played.namespace}/leases/model-operator"
    lease = await played.kube._call("GET", path)
    name: str = lease["spec"]["holderIdentity"]
    return name


async def scraped(replica: Replica, path: str) -> tuple[int, str]:
    line = await replica.process.logged("health and metrics on port")
    url = f"http://127.0.0.1:{line.split()[-1]}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


# ------------------------------------------------------------------------------- one leads


async def test_a_follower_is_ready_and_reads_nothing_but_the_lease(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        await in_mid_canary(played)
        # then the one that leads says so, and both are ready
        for replica, leads in ((first, "1.0"), (second, "0.0")):
            assert (await scraped(replica, "/readyz"))[0] == 200
            assert f"model_operator_leader {leads}" in (await scraped(replica, "/metrics"))[1]
        # and the follower has neither written anything nor read anything else
        assert {(call.method, call.resource) for call in second.way.calls} == {("GET", "leases")}


async def test_s39_a_leader_that_ends_in_order_is_replaced_at_once(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        old, new = await in_mid_canary(played)
        # when it is asked to end
        begun = time.monotonic()
        first.process.terminate()
        await second.process.leads()
        # then the other leads before the lease would have run out
        assert time.monotonic() - begun < float(SHORT["lease_seconds"])
        assert await first.process.ended() == 0
        # and no object is marked, since nothing of the first can still be on its way
        assert "annotations" not in (await played.route())["metadata"]
        # and it goes on from there
        await played.change(lambda mdep: mdep["spec"]["rollout"].update(steps=[TO_10]))
        await played.until_weights({old: 100}, {old: 90, new: 10}, {new: 100})


async def test_s39_a_killed_leader_is_replaced_within_twenty_seconds_as_installed(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    # given the times of the lease as they are by default
    async with replicas(played, controllers, tmp_path) as (first, second):
        old, new = await in_mid_canary(played)
        # when the leader is killed, and the candidate turns bad
        first.process.kill()
        played.behaviours[digest(2)] = Behaviour(error_share=0.5)

        async def taken_off() -> bool:
            return read_weights(await played.route()) == {old: 100}

        # then the candidate is off the route within twenty seconds
        took_s = await played.until("taken off", taken_off, timeout_s=ACTUAL_TAKEOVER_S)
        assert second.process.has_led()
        assert took_s > 1.0, "somebody else took it off"
        status = await played.until_state("RolledBack")
        assert status["rolledBack"][0]["revision"] == new


# ---------------------------------------------------------------------------- cut off, stopped


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_s39_a_leader_that_is_cut_off_gives_up_before_the_other_leads(
    played: World,
    controllers: ControlPlane,
    tmp_path: Path,
    silent: bool,  # noqa: FBT001 - a parameter
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        await in_mid_canary(played)
        # when the leader's calls get no answer any more
        begun = time.monotonic()
        if silent:
            first.way.fall_silent()
        else:
            first.way.refuse()
        gave_up = asyncio.create_task(first.process.ended(SHORT_TAKEOVER_S))
        await second.process.leads(SHORT_TAKEOVER_S)
        assert time.monotonic() - begun < SHORT_TAKEOVER_S
        # then it has ended with an error, so that the kubelet starts it again
        assert await gave_up == 1
        assert await holder(played) == "second"


async def test_s39_a_leader_stopped_between_a_read_and_a_write_writes_nothing_when_it_goes_on(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        old, new = await in_mid_canary(played)
        # given a leader that has read what it raises the weight on, and is stopped right then
        stopped = stop_when(first, lambda call: call.method == "GET" and call.resource == "pods")
        await played.change(lambda mdep: mdep["spec"]["rollout"].update(steps=[TO_10, TO_50]))
        await asyncio.wait_for(stopped.wait(), 10)
        written = len(first.way.writes)
        # when the candidate turns bad, the other takes over and takes it off the route
        played.behaviours[digest(2)] = Behaviour(error_share=0.5)
        await second.process.leads(SHORT_TAKEOVER_S)
        await played.until_state("RolledBack")
        # and the old one goes on
        first.process.resume()
        # then it ends without a single write
        assert await first.process.ended() == 1
        assert len(first.way.writes) == written
        assert played.weights_seen == [{old: 100}, {old: 90, new: 10}, {old: 100}]


# ------------------------------------------------------------------------- what comes too late


async def test_s39_a_raise_that_arrives_after_the_next_leader_s_decision_changes_nothing(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        # given a first weight for a candidate, which is on its way when its sender is stopped
        late = delay(first, lambda call: call.resource == "httproutes" and weighs(call, 10))
        manifest = model_deployment(played.namespace)
        await played.create(manifest)
        old = await played.until_ready()
        await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
        await asyncio.wait_for(late.sent.wait(), 20)
        first.process.stop()
        # when the user takes the model back: the next leader finds the route as it must be
        await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(1)))
        await second.process.leads(SHORT_TAKEOVER_S)
        await played.until_state("Idle")
        # and then the weight arrives
        late.go.set()
        await asyncio.wait_for(late.answered.wait(), 10)
        # then it is refused
        assert late.code == 409
        assert played.weights_seen == [{old: 100}]
        first.process.resume()
        assert await first.process.ended() == 1


async def test_s39_replicas_that_arrive_after_the_next_leader_s_decision_change_nothing(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        # given a model that serves with three replicas, and a fall to one that is on its way
        await played.create(model_deployment(played.namespace, replicas=3))
        revision = await played.until_ready()
        late = delay(first, lambda call: call.resource == "deployments" and call.method == "PATCH")
        await played.change(lambda mdep: mdep["spec"].update(replicas=1))
        await asyncio.wait_for(late.sent.wait(), 20)
        first.process.stop()
        # when the user wants three again: the next leader finds three
        await played.change(lambda mdep: mdep["spec"].update(replicas=3))
        await second.process.leads(SHORT_TAKEOVER_S)
        await reconciled(second)
        pods = set(played.pods)
        # and then the fall arrives
        late.go.set()
        await asyncio.wait_for(late.answered.wait(), 10)
        # then no pod goes
        assert late.code == 409
        assert await played.deployments() == [revision]
        assert set(played.pods) == pods


async def test_s39_a_deletion_that_arrives_after_the_next_leader_s_decision_takes_nothing(
    played: World, controllers: ControlPlane, tmp_path: Path
) -> None:
    async with replicas(played, controllers, tmp_path, **SHORT) as (first, second):
        # given a promotion whose bake is over: the former revision's deletion is on its way
        late = delay(first, lambda call: call.resource == "deployments" and call.method == "DELETE")
        await played.create(model_deployment(played.namespace))
        old = await played.until_ready()
        await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
        await asyncio.wait_for(late.sent.wait(), 30)
        first.process.stop()
        # when the user goes back to it, and the next leader finds its pods warm
        await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(1)))
        await second.process.leads(SHORT_TAKEOVER_S)
        await reconciled(second)
        pods = {name for name, pod in played.pods.items() if pod.revision == old}
        # and then the deletion arrives
        late.go.set()
        await asyncio.wait_for(late.answered.wait(), 10)
        # then it is refused
        assert late.code == 409
        assert old in await played.deployments()
        assert pods
        assert pods <= set(played.pods)


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_s39_each_write_of_a_rollout_is_refused_after_a_takeover(
    controllers: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    # given a rollout, and each of its writes in turn
    for number in range(1, 100):
        own = f"{namespace}-{number}"
        controllers.kubectl("create", "namespace", own)
        folder = tmp_path / own
        folder.mkdir()
        async with world(controllers.kubeconfig, own) as played:
            played.requests_per_s = 100.0
            async with replicas(played, controllers, folder, **SHORT) as (first, second):
                # when that one is on its way while the next leader brings the rollout to its end
                late = await late_write(played, first, number)
                if late is None:
                    assert number > 20  # the rollout has no more writes
                    return
                await second.process.leads(SHORT_TAKEOVER_S)
                await reconciled(second)
                await played.until("over", functools.partial(is_over, played), 40)
                late.go.set()
                await asyncio.wait_for(late.answered.wait(), 10)
                # then it is refused; a status may come in, if nobody has written it since
                assert late.code in {404, 409} or late.call.resource.endswith("/status"), late.call
                rises = [max(weights.values()) for weights in played.weights_seen]
                assert rises == [100, 90, 50, 100]
    raise AssertionError("a rollout has no end")


async def late_write(played: World, first: Replica, number: int) -> Late | None:
    """Stop a leader at such a write of a rollout, news aside; None when it ends before that."""
    await played.create(model_deployment(played.namespace))
    await played.until_ready()
    await played.until_event("Promoted")
    count = itertools.count(1)

    def is_it(call: Call) -> bool:
        kind = call.writes and call.resource not in {"leases", "events"}
        return kind and next(count) == number

    late = delay(first, is_it)
    await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))

    async def sent_or_over() -> bool:
        budgets = await played.kube.list(DISRUPTION_BUDGET, namespace=played.namespace)
        return late.sent.is_set() or (await is_over(played) and len(budgets.items) == 1)

    await played.until("sent or over", sent_or_over, 40)
    if not late.sent.is_set():
        return None
    first.process.stop()
    return late


async def is_over(played: World) -> bool:
    status = await played.status()
    promoted = status["stable"]["digest"] == digest(2) and status["rollout"]["state"] == "Idle"
    return promoted and len(await played.deployments()) == 1


# ------------------------------------------------------------------------------- the lease itself


async def test_the_lease_is_written_as_kubernetes_wants_it_and_only_over_what_was_read(
    controllers: ControlPlane, namespace: str
) -> None:
    configuration = await load_configuration(str(controllers.kubeconfig))
    lease = LeaseClient(configuration, namespace, "model-operator", timeout_s=5.0)
    try:
        assert await lease.read() is None
        claim = Claim("a", 12, 0, None, None)
        created = await lease.write(claim, None)
        assert created.claim == claim
        assert await lease.read() == created
        with pytest.raises(ConflictError):
            await lease.write(claim, None)
        taken = await lease.write(Claim("b", 12, 1, None, None), created)
        with pytest.raises(ConflictError):
            await lease.write(claim, created)
        assert (await lease.read()) == taken
    finally:
        await lease.close()


# ---------------------------------------------------------------------------------- what is used


def stop_when(replica: Replica, wanted: Any) -> asyncio.Event:
    """Stop a replica when such a call is answered, before it can read the answer."""
    stopped = asyncio.Event()

    async def after(call: Call) -> None:
        if wanted(call) and not stopped.is_set():
            replica.process.stop()
            stopped.set()

    replica.way.after = after
    return stopped


@dataclass(slots=True)
class Late:
    """A call that is on its way.

    Attributes:
        sent: Set when the process has sent it.
        go: To be set when it may arrive.
        answered: Set when the API server has answered.
    """

    sent: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)

    @property
    def call(self) -> Call:
        """The call itself, with the answer."""
        return self.calls[0]

    @property
    def code(self) -> int:
        return self.call.code


def delay(replica: Replica, wanted: Any) -> Late:
    """Hold the first such call of a replica up before it reaches the API server."""
    late = Late()

    async def before(call: Call) -> None:
        if not late.calls and wanted(call):
            late.calls.append(call)
            late.sent.set()
            await late.go.wait()

    async def after(call: Call) -> None:
        if any(call is held for held in late.calls):
            late.answered.set()

    replica.way.before, replica.way.after = before, after
    return late


def weighs(call: Call, percent: int) -> bool:
    return call.writes and percent in read_weights(call.body).values()


async def reconciled(replica: Replica) -> None:
    """Wait until a leader has looked at everything once."""
    async with asyncio.timeout(10):
        while True:
            text = (await scraped(replica, "/metrics"))[1]
            if "model_operator_reconcile_duration_seconds_count 0.0" not in text:
                return
            await asyncio.sleep(0.05)
