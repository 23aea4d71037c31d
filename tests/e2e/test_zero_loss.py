"""Many rollouts under load, with drains and kills in between: no request is lost.

A request counts as lost when it has no good answer and no candidate answered it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from hack.demo.cluster import kubectl
from hack.demo.history import History, Outcome
from tests.e2e import nodes
from tests.e2e.conftest import LENGTHY, LONG
from tests.e2e.scene import NAME, Scene, failed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

Stage = Callable[..., Scene]


@pytest.mark.parametrize(
    "rollouts", [pytest.param(3, id="3"), pytest.param(20, id="20", marks=pytest.mark.full)]
)
def test_s33_s38_rollouts_with_drains_and_kills_in_between_lose_no_request(
    stage: Stage, rollouts: int, record_property: Callable[[str, object], None]
) -> None:
    s = stage(step_s=4).serving(1, rate=100)
    stable, bad = 1, 3
    met = Counter[tuple[str, str]]()
    for turn in range(rollouts):
        good = turn % 3 != 1
        version = 3 - stable if good else bad
        s.apply(version, expected=Outcome.PROMOTED if good else Outcome.ROLLED_BACK)
        s.wait_for_weight(s.history.applied[-1].digest, 5)
        met[disturb(s, turn), "good" if good else "bad"] += 1
        if good:
            s.wait_for_promotion()
            stable = version
        else:
            s.wait_for_rollback(timeout_s=120)
            s.apply(stable)  # the spec names what serves, so that the bad one may be tried again
            s.wait("at rest", lambda h: h.status.rollout.state == "Idle", 30)
    time.sleep(3)
    history = s.stop()
    trials = {history.revision_of(s.model(bad).digest)}
    lost = failed(history, but=next(iter(trials)) or "")
    answered = Counter[str]()
    for cell in history.cells():
        answered[cell.code] += cell.count
    record_property("requests", sum(answered.values()))
    record_property("lost_requests", lost)
    record_property("disturbed", {" ".join(both): count for both, count in met.items()})
    assert met["kill", "good"] >= 1
    assert met["kill", "bad"] + met["drain", "bad"] >= 1
    assert lost == 0, answered
    assert_no_connection_is_pinned(history)


def disturb(s: Scene, turn: int) -> str:
    """Kill the operator, drain a node, or leave it be, in turns; which of them.

    Every third version is bad, and the cycle of four shares no divisor with that: good ones and bad
    ones meet all of it.
    """
    match turn % 4:
        case 0:
            with s.disturbance():
                nodes.kill_operator()
            return "kill"
        case 1 | 3:
            with s.draining(nodes.workers()[turn // 2 % 2]):
                return "drain"
        case _:
            return "nothing"


def assert_no_connection_is_pinned(history: History) -> None:
    """Nobody is answered by a revision long after its weight was 0."""
    for revision in {cell.revision for cell in history.cells()}:
        spans = history.spans(revision)
        if not spans or spans[-1].percent > 0:
            continue
        late = [c for c in history.cells(revision) if c.last_sent > spans[-1].start + 2.0]
        assert not late, f"{revision} answered after its weight was 0: {late[:3]}"


def test_requests_of_ten_seconds_in_flight_at_scale_down_are_answered(stage: Stage) -> None:
    s = stage()
    s.apply(LONG)
    s.wait("ready", lambda h: h.status.stable is not None and h.status.stable.ready_replicas == 2,
           180)  # fmt: skip
    time.sleep(1)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask_once, s) for _ in range(4)]
        time.sleep(3)
        assert not any(future.done() for future in asked), "they take about ten seconds"
        patch = json.dumps({"spec": {"replicas": 1}})
        kubectl("-n", s.namespace, "patch", "mdep", NAME, "--type=merge", "-p", patch)
        codes = Counter(result(future) for future in asked)
    assert codes == {"200": 4}
    left = json.loads(kubectl("-n", s.namespace, "get", "mdep", NAME, "-o", "json"))
    assert left["status"]["replicas"] == 1


def ask_once(s: Scene) -> str:
    """One request through the gateway from inside the cluster; its HTTP code."""
    script = (
        "import json, urllib.request as u;"
        "body = {'inputs': [{'name': 'pixels', 'datatype': 'FP32', 'shape': [1, 64],"
        " 'data': [0.0] * 64}]};"
        f"r = u.Request('http://gateway.gateway.svc.cluster.local/v2/models/{NAME}/infer',"
        f" json.dumps(body).encode(), {{'Host': '{s.place.hostname}'}});"
        "print(u.urlopen(r, timeout=120).status)"
    )
    return kubectl("-n", s.namespace, "exec", "deployment/loadgen", "--", "python3", "-c", script)


def result(future: Future[str]) -> str:
    return future.result(timeout=150).strip()


def test_s42_what_is_deleted_in_mid_canary_answers_what_it_accepted_and_leaves_nothing(
    stage: Stage,
) -> None:
    s = stage(step_s=120)
    s.apply(LENGTHY)
    s.wait("ready", lambda h: h.status.stable is not None and h.status.stable.ready_replicas == 2,
           120)  # fmt: skip
    s.wait_for_weight(s.apply(1).digest, 5)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask_once, s) for _ in range(4)]
        time.sleep(2)
        assert not all(future.done() for future in asked), "they take some seconds"
        kubectl("-n", s.namespace, "delete", "mdep", NAME, "--wait=false")
        codes = Counter(result(future) for future in asked)
    assert codes == {"200": 4}
    deadline = time.monotonic() + 60
    while left := children(s):
        assert time.monotonic() < deadline, f"not collected: {left}"
        time.sleep(1)


def children(s: Scene) -> str:
    """Names of what belongs to the model, pods on their way out among them."""
    kinds = "mdep,mrev,httproutes,deployments,services,poddisruptionbudgets,pods"
    selector = f"modeldeployment.dev/name={NAME}"
    own = kubectl("-n", s.namespace, "get", "mdep", NAME, "--ignore-not-found", "-o", "name")
    return own + kubectl("-n", s.namespace, "get", kinds, "-l", selector, "-o", "name")
