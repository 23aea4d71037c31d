"""Deadlines, suspension, replicas, the bake and gateways that refuse."""

from __future__ import annotations

import pytest

from model_operator.api.types import Comparison, Duration, Metric, OnInsufficient, replace
from model_operator.core.verdict import Outcome
from tests.builders import pause, spec, weight
from tests.scenarios.staged import ANALYSIS, at_weight, world
from tests.scenarios.world import Model, World, unavailable

# --------------------------------------------------------------------------- deadline and suspend


def test_s32_the_progress_deadline_ends_a_rollout_that_does_not_get_on() -> None:
    w = world(deadline="60s", replicas=4)
    w = at_weight(w, "two", 5)
    w.models["two"].failure = None
    w.room = {"two": 1}
    w.run(55)
    assert w.status.candidate is not None
    w.run(30)
    assert w.status.rolled_back[-1].reason == "ProgressDeadlineExceeded"
    assert w.route() == {"one": 100}


def test_s32_paused_time_does_not_count() -> None:
    w = world(weight(5), pause(), weight(50), deadline="60s").release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.run(900)
    assert w.state() == "Paused"
    w.ask("promote", "two")
    w.run_until(lambda w: w.weight("two") == 100)


def test_s32_held_time_does_not_count() -> None:
    w = at_weight(world(deadline="60s"), "two", 25)
    w.metrics = lambda _: unavailable()
    w.run(900)
    assert w.state() == "Held"
    w.metrics = None
    w.run_until(lambda w: w.weight("two") == 100)


def test_s14_few_requests_make_one_hold_and_not_one_for_each_of_them() -> None:
    w = at_weight(world(), "two", 5)
    w.rate = 1.0  # one request for the candidate in twenty seconds
    w.run_until(lambda w: w.weight("two") == 25, within_s=1_200)
    assert w.names().count("HoldBegan") == 1
    assert w.names().count("HoldEnded") == 1


def test_s14_drift_of_the_route_does_not_begin_the_hold_anew() -> None:
    w = at_weight(world(), "two", 25)
    patience = replace(ANALYSIS, on_insufficient=OnInsufficient(hold=Duration("120s")))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, analysis=patience))
    w.rate, begin = 0.0, w.now
    while w.state() != "RolledBack":
        assert w.now - begin < 150, w.story()
        w.run(20)
        w.weights = {"one": 20, "two": 80}
    assert w.status.rolled_back[-1].reason == "InsufficientData"
    assert w.now - begin >= 120


@pytest.mark.parametrize("moment", ["preflight", "25", "bake"])
def test_s44_nothing_changes_while_suspended_and_it_goes_on_in_place(moment: str) -> None:
    w = world(bake="20s").release("two")
    match moment:
        case "preflight":
            w.run_until(lambda w: w.status.candidate is not None)
        case "bake":
            w.run_until(lambda w: w.weight("two") == 100)
        case percent:
            w.run_until(lambda w: w.weight("two") == int(percent))
    w.run(1)
    w.spec = replace(w.spec, suspend=True)
    w.run(1)
    before = (w.route(), set(w.deployments), w.weights_seen("two"))
    w.run(600)
    assert (w.route(), set(w.deployments), w.weights_seen("two")) == before
    w.spec = replace(w.spec, suspend=False)
    w.run_until(lambda w: set(w.deployments) == {"two"})
    assert w.weights_seen("two") == [0, 5, 25, 50, 100]


def test_s44_a_release_while_suspended_waits() -> None:
    w = world()
    w.spec = replace(w.spec, suspend=True)
    w.release("two").run(600)
    assert set(w.deployments) == {"one"}
    w.spec = replace(w.spec, suspend=False)
    w.run_until(lambda w: w.weight("two") == 100)


# --------------------------------------------------------------------------------------- replicas


def test_s34_more_replicas_while_paused_scale_both_sides_and_no_weight() -> None:
    w = world(weight(25), pause(), weight(50), replicas=4).release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.spec = replace(w.spec, replicas=8)
    w.run(5)
    assert (w.ready("one"), w.ready("two")) == (8, 4), "one weight ahead: 50 % of 8"
    assert w.route() == {"one": 75, "two": 25}
    assert w.state() == "Paused"


@pytest.mark.parametrize("replicas", [1, 7])
@pytest.mark.parametrize("moment", ["preflight", "weight", "pause", "held", "bake", "rolled back"])
def test_s34_s58_replicas_changed_at_any_moment_move_no_weight(moment: str, replicas: int) -> None:
    bad = Model(error_rate=0.5 if moment == "rolled back" else 0.0)
    w = world(weight(25, "20s"), pause(), weight(50), candidate=bad, replicas=3, bake="60s")
    w.release("two")
    reached = {"pause": "Paused", "rolled back": "RolledBack"}
    if moment in reached:
        w.run_until(lambda w: w.state() == reached[moment])
    elif moment == "bake":
        w.run_until(lambda w: w.state() == "Paused")
        w.ask("promote", "two")
        w.run_until(lambda w: w.state() == "Baking")
    elif moment == "preflight":
        w.run_until(lambda w: w.status.candidate is not None)
    else:
        w.run_until(lambda w: w.weight("two") == 25)
    if moment == "held":
        w.metrics = lambda _: unavailable()
        w.run_until(lambda w: w.state() == "Held")
    before, seen = w.status.rolled_back, w.weights_seen("two")
    w.spec = replace(w.spec, replicas=replicas)
    w.run(5)
    expected = [0, 25] if moment == "preflight" else seen
    assert w.weights_seen("two") == expected
    w.metrics = None
    if moment in {"preflight", "weight", "pause", "held"}:
        w.run_until(lambda w: w.state() == "Paused")
        w.ask("promote", "two")
    w.run(180)
    last = "one" if moment == "rolled back" else "two"
    assert w.route() == {last: 100}
    assert {name: w.ready(name) for name in w.deployments} == {last: replicas}
    assert w.status.rolled_back == before


def test_s34_fewer_replicas_in_a_rollout_wait_until_it_is_over() -> None:
    w = at_weight(world(replicas=4, bake="20s"), "two", 25)
    w.spec = replace(w.spec, replicas=2)
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.ready("two") == 4
    assert w.ready("one") == 4, "the way back keeps its capacity"
    w.run(60)
    assert w.ready("two") == 2


def test_s34_replicas_changed_after_a_rollback() -> None:
    w = world(candidate=Model(error_rate=0.5), replicas=4).release("two")
    w.run_until(lambda w: w.state() == "RolledBack")
    w.run(10)
    w.spec = replace(w.spec, replicas=6)
    w.run(10)
    assert w.ready("one") == 6
    assert w.route() == {"one": 100}


def test_s35_an_autoscaler_that_doubles_stable_changes_no_verdict() -> None:
    w = world(weight(25, "20s"), weight(50, "20s"), replicas=2)
    against = Metric(
        name="against-stable",
        type="Comparison",
        comparison=Comparison(query="latency {{ revision }}", max_increase_percent=20),
    )
    analysis = replace(ANALYSIS, metrics=(*ANALYSIS.metrics, against))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, analysis=analysis))
    at_weight(w, "two", 25).run(10)
    events, state = w.tests.tests["errors"].finding.samples, w.state()
    w.spec = replace(w.spec, replicas=4)
    w.run(2)
    finding = w.tests.tests["errors"].finding
    assert finding.samples == events + 50, "25 % of 100 requests/s for two seconds"
    assert w.state() == state
    assert w.judged is not None
    assert w.judged.verdict.outcome is Outcome.PASS
    w.run_until(lambda w: w.weight("two") == 50)
    assert w.ready("two") >= 2, "half of four"
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.ready("two") == 4
    assert w.weights_seen("two") == [0, 25, 50, 100]


@pytest.mark.parametrize("replicas", [1, 2, 7])
def test_s58_an_autoscaler_does_not_try_a_rolled_back_revision_again(replicas: int) -> None:
    w = world(candidate=Model(error_rate=0.5), replicas=3).release("two")
    w.run_until(lambda w: w.state() == "RolledBack")
    w.run(10)
    w.spec = replace(w.spec, replicas=replicas)
    w.run(600)
    assert w.weights_seen("two")[-1] == 0
    assert w.names().count("Started") == 2, "the first one, and the one attempt"
    assert set(w.deployments) == {"one"}
    assert w.ready("one") == replicas


# ------------------------------------------------------------------------------------------- bake


def test_s52_a_regression_an_hour_after_the_promotion_goes_back_to_the_warm_one() -> None:
    w = at_weight(world(bake="2h"), "two", 100)
    w.rate = 10.0
    w.run(3_600)
    w.models["two"].error_rate = 0.5
    w.run_until(lambda w: w.weight("one") == 100, within_s=60)
    assert w.status.rolled_back[-1].revision == "two"
    assert w.status.stable is not None
    assert w.status.stable.revision == "one"


def test_s57_during_the_bake_it_is_found_as_fast_as_at_the_start() -> None:
    early = at_weight(world(bake="1h"), "two", 100)
    early.rate = 10.0
    early.run(5)
    late = at_weight(world(bake="1h"), "two", 100)
    late.rate = 10.0
    late.run(1_800)
    took = []
    for w in (early, late):
        w.models["two"].error_rate = 0.5
        took.append(w.run_until(lambda w: w.weight("one") == 100, within_s=60))
    assert took[1] <= took[0] + 5, took


@pytest.mark.parametrize("at", ["preflight", "25", "bake", "rest"])
def test_s28_a_gateway_that_does_not_accept_the_route_stops_everything(at: str) -> None:
    w = world(bake="20s").release("two")
    match at:
        case "preflight":
            w.run_until(lambda w: w.status.candidate is not None)
        case "bake" | "rest":
            w.run_until(lambda w: w.weight("two") == 100)
            w.run(60 if at == "rest" else 0)
        case percent:
            w.run_until(lambda w: w.weight("two") == int(percent))
    w.refusal = "no listener matches"
    before, pods = w.weight("two"), {r: len(d.asked) for r, d in w.deployments.items()}
    w.run(30)
    if at == "25":
        assert w.weight("two") == before, "no advance"
    assert w.condition("Stalled") == ("True", "RouteNotAccepted")
    assert all(len(w.deployments[r].asked) >= count for r, count in pods.items()), "no scale-down"
    w.refusal = ""
    w.run_until(lambda w: w.weight("two") == 100)


def test_a_gateway_that_takes_its_moment_to_answer_stalls_nothing() -> None:
    w = world().release("two")
    for _ in range(200):
        w.tick()
        assert w.condition("Stalled")[0] == "False", w.story()
    assert w.weight("two") == 100


def test_s28_a_gateway_that_never_answers_needs_someone() -> None:
    w = at_weight(world(), "two", 25)
    w.gateway_up = False
    w.weights = {"one": 90, "two": 10}
    w.run(40)
    assert w.condition("Stalled") == ("True", "RouteNotAccepted")
    assert w.weight("two") == 25, "no advance"
    w.gateway_up = True
    w.run_until(lambda w: w.weight("two") == 100)


def with_hold(w: World, hold: str) -> World:
    policy = OnInsufficient(hold=Duration(hold), then="Rollback")
    analysis = replace(w.spec.rollout.analysis, on_insufficient=policy)
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, analysis=analysis))
    return w


def test_i11_a_third_revision_does_not_pay_for_the_evidence_that_the_bake_lacks() -> None:
    w = with_hold(world(pause(), weight(25), bake="1h"), "60s").release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.ask("promote", "two")
    w.run_until(lambda w: w.weight("two") == 100)
    w.run(5)
    w.release("three").run_until(lambda w: w.state() == "Paused")
    w.rate = 0
    w.run(120)
    assert not w.status.rolled_back
    assert w.state() == "Paused"


def test_s14_a_pause_that_waits_for_a_person_waits_without_traffic_too() -> None:
    w = with_hold(world(weight(5), pause(), weight(50)), "60s").release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.rate = 0
    w.run(600)
    assert w.state() == "Paused"
    w.rate = 100
    w.ask("promote", "two")
    w.run_until(lambda w: w.weight("two") == 100)


def test_s17_the_clock_of_a_timed_pause_stands_still_without_metrics() -> None:
    w = world(weight(25), pause("60s"), weight(50)).release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.run(5)
    w.metrics = lambda _: unavailable()
    w.run(120)
    assert w.state() == "Held"
    w.metrics = None
    assert w.run_until(lambda w: w.weight("two") == 50) >= 45


def test_a_model_that_is_scaled_to_nothing_has_not_collapsed() -> None:
    w = World(spec(replicas=0, analysis=ANALYSIS), {"one": Model(), "two": Model()})
    w.run(5)
    w.release("two").run_until(lambda w: w.weight("two") == 100)
    w.run(10)
    assert not w.status.rolled_back
    w.spec = replace(w.spec, replicas=2)
    w.run(10)
    assert w.route() == {"two": 100}
    assert w.state() == "Idle"
