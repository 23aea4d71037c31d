"""Releases that overlap, specs that are edited and counts that change in mid-rollout."""

from __future__ import annotations

from typing import Any

import pytest

from model_operator.api.types import Analysis, Decimal, Duration, Events, Metric, replace
from model_operator.core.observed import NO_ROOM, Failure
from tests.builders import pause, spec, weight
from tests.scenarios.world import Model, World, unavailable

ERRORS = Metric(
    name="errors",
    type="Events",
    events=Events(bad="bad", total="total", max_rate=Decimal("0.01"), min_events=50),
)
ANALYSIS = Analysis(interval=Duration("1s"), metric_source="prometheus", metrics=(ERRORS,))


def world(*steps: Any, candidate: Model | None = None, **fields: Any) -> World:
    models = {"one": Model(), "two": candidate or Model(), "three": Model()}
    return World(spec(*steps, analysis=ANALYSIS, **fields), models).serving()


def at_weight(w: World, revision: str, percent: int) -> World:
    w.release(revision).run_until(lambda w: w.weight(revision) == percent)
    return w


def never_below(w: World, revision: str, pods: int, seconds: float) -> None:
    """Let time pass; the revision keeps its ready pods all the while."""
    for _ in range(round(seconds * 4)):
        w.tick()
        assert w.ready(revision) >= pods, w.story()


# ------------------------------------------------------------------------------ a third revision


@pytest.mark.parametrize("moment", ["preflight", "5", "25", "50", "pause", "held"])
def test_s20_a_third_revision_takes_the_seconds_place_from_the_first_step(moment: str) -> None:
    steps = [weight(5), weight(25), pause(), weight(50)]
    w = world(*steps).release("two")
    match moment:
        case "preflight":
            w.run_until(lambda w: w.status.candidate is not None)
        case "pause":
            w.run_until(lambda w: w.state() == "Paused")
        case "50":
            w.run_until(lambda w: w.state() == "Paused")
            w.ask("promote", "two")
            w.run_until(lambda w: w.weight("two") == 50)
        case "held":
            w.run_until(lambda w: w.weight("two") == 25)
            w.metrics = lambda _: unavailable()
            w.run_until(lambda w: w.state() == "Held")
            w.metrics = None
        case percent:
            w.run_until(lambda w: w.weight("two") == int(percent))

    w.release("three")
    never_below(w, "one", 2, 1.0)
    assert w.weight("two") == 0
    assert w.weight("three") == 0, "it starts from step 0"
    w.run_until(lambda w: w.state() == "Paused")
    w.ask("promote", "three")
    w.run_until(lambda w: w.weight("three") == 100)
    assert w.weights_seen("three") == [0, 5, 25, 50, 100]
    assert "two" not in w.deployments


def test_s20_no_pod_of_the_third_is_selected_before_the_second_is_off_the_route() -> None:
    w = at_weight(world(), "two", 25)
    w.gateway_up = False
    w.release("three").run(60)
    assert w.weight("three") == 0
    w.gateway_up = True
    w.run_until(lambda w: w.weight("three") == 5)
    for entry in w.history:
        assert not (entry.weights.get("two") and entry.weights.get("three"))


def test_s21_a_third_revision_during_the_bake_gets_its_own_canary() -> None:
    w = at_weight(world(bake="300s"), "two", 100)
    w.release("three").run_until(lambda w: w.weight("three") == 5)
    assert w.weight("two") == 95, "users are on the one that was analysed"
    w.run_until(lambda w: w.weight("three") == 100)
    assert w.weights_seen("three") == [0, 5, 25, 50, 100]


def test_s21_a_third_revision_at_the_moment_of_promotion() -> None:
    w = at_weight(world(), "two", 50)
    w.run_until(lambda w: "Promoted" in w.names()[2:])
    w.release("three").run_until(lambda w: w.weight("three") == 5)
    assert w.weight("one") == 0
    assert w.weight("two") == 95


def test_s21_when_the_baking_one_fails_the_former_comes_back_and_the_third_waits() -> None:
    w = at_weight(world(bake="300s"), "two", 100)
    w.models["three"].failure = Failure("SourceUnavailable", "not there yet", definite=False)
    w.release("three").run(5)
    w.models["two"].error_rate = 0.5
    w.run_until(lambda w: w.weight("one") == 100, within_s=30)
    assert w.weight("three") == 0
    w.models["three"].failure = None
    w.run_until(lambda w: w.weight("three") == 100)
    assert w.weights_seen("three") == [0, 5, 25, 50, 100]


# ------------------------------------------------------------------------------------ going back


def test_s23_back_to_a_warm_revision_is_at_once() -> None:
    w = at_weight(world(bake="300s"), "two", 100).run(10)
    pods = list(w.deployments["one"].asked)
    took = w.release("one").run_until(lambda w: w.weight("one") == 100)
    assert took <= 1.0
    assert w.weights_seen("one")[-2:] == [0, 100]
    assert w.deployments["one"].asked == pods, "no pod was restarted"
    w.run(30)
    assert w.state() == "Idle"
    assert set(w.deployments) == {"one"}
    assert not w.status.rolled_back


def test_s23_back_to_a_revision_that_is_half_warm_follows_its_ready_pods() -> None:
    w = world(bake="300s", bake_replicas=1, replicas=4)
    w = at_weight(w, "two", 100).run(10)
    assert w.ready("one") == 1
    w.release("one").run_until(lambda w: w.weight("one") == 100)
    assert w.weights_seen("one")[-3:] == [0, 25, 100]
    for entry in w.history:
        assert sum(entry.weights.values()) in (0, 100)


def test_s23_back_to_n_minus_2_in_the_preflight_of_the_third() -> None:
    w = at_weight(world(bake="300s"), "two", 100)
    w.models["three"].failure = Failure("SourceUnavailable", "not there yet", definite=False)
    w.release("three").run(3)
    assert w.status.candidate is not None
    took = w.release("one").run_until(lambda w: w.weight("one") == 100)
    assert took <= 1.5


def test_s23_back_to_a_cold_revision_is_a_rollout_like_any_other() -> None:
    w = at_weight(world(bake="10s"), "two", 100).run(30)
    assert set(w.deployments) == {"two"}
    w.release("one").run_until(lambda w: w.weight("one") == 100)
    assert w.weights_seen("one")[-4:] == [5, 25, 50, 100]


def test_a_warm_revision_that_collapses_on_the_way_back_is_taken_off_again() -> None:
    w = world(bake="300s", bake_replicas=1, replicas=4)
    w = at_weight(w, "two", 100).run(10)
    w.release("one").run_until(lambda w: w.weight("one") == 25)
    w.deployments["one"].unready = True
    w.run(1)
    assert w.route() == {"two": 100}
    assert w.status.rolled_back[-1].reason == "ReadinessCollapsed"


def test_a_rolled_back_revision_that_is_named_again_after_another_is_tried_again() -> None:
    """Until the spec names another revision: then naming it is a wish, and no retry by itself."""
    w = world(candidate=Model(error_rate=0.5)).release("two")
    w.run_until(lambda w: w.state() == "RolledBack")
    w.run(60)
    assert w.state() == "RolledBack"
    w.release("one").run(10)
    w.models["two"].error_rate = 0.0
    w.release("two").run_until(lambda w: w.weight("two") == 100)


# --------------------------------------------------------------------------- edited in mid-canary


@pytest.mark.parametrize(
    ("edited", "seen"),
    [
        ([weight(10), weight(40)], [0, 5, 25, 10, 40, 100]),
        ([weight(5), weight(10), weight(20), weight(40)], [0, 5, 25, 20, 40, 100]),
        ([weight(5), weight(50)], [0, 5, 25, 5, 50, 100]),
        ([weight(5), weight(25), weight(30)], [0, 5, 25, 30, 100]),
        ([weight(5)], [0, 5, 25, 5, 100]),
    ],
)
def test_s24_edited_steps_never_raise_the_weight_without_a_verdict(
    edited: list[Any], seen: list[int]
) -> None:
    w = at_weight(world(), "two", 25).run(3)
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=tuple(edited)))
    before = w.now
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.weights_seen("two") == seen
    rises = [entry.time for entry in w.history if entry.weights.get("two", 0) > 25]
    assert rises[0] - before >= 4, "each weight is held for its time"


def test_s24_when_all_weights_are_above_the_present_one_it_begins_again() -> None:
    w = at_weight(world(), "two", 25).run(3)
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=(weight(60),)))
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.weights_seen("two") == [0, 5, 25, 0, 60, 100]


def test_s24_without_evidence_edited_steps_stay_where_they_are() -> None:
    w = at_weight(world(), "two", 25).run(1)
    w.metrics = lambda _: unavailable()
    steps = (weight(10), weight(40))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=steps))
    w.run(120)
    assert w.weight("two") == 10
    w.metrics = None
    w.run_until(lambda w: w.weight("two") == 100)


def test_s24_a_pause_put_in_front_of_the_present_weight_is_kept() -> None:
    w = at_weight(world(weight(5), weight(25, "20s"), weight(50)), "two", 25).run(1)
    steps = (weight(5), weight(25, "20s"), pause(), weight(50))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=steps))
    w.run_until(lambda w: w.state() == "Paused")
    assert w.weight("two") == 25


def test_s24_a_stricter_analysis_counts_from_the_moment_it_is_there() -> None:
    steps = (weight(5), weight(25, "120s"))
    w = at_weight(world(*steps, candidate=Model(error_rate=0.005)), "two", 25).run(1)
    events = Events(bad="bad", total="total", max_rate=Decimal("0.0005"), min_events=50)
    strict = replace(ERRORS, events=events)
    analysis = replace(ANALYSIS, metrics=(strict,))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, analysis=analysis))
    w.run_until(lambda w: w.state() == "RolledBack", within_s=600)


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


def test_no_room_for_the_next_weight_is_said_and_the_weight_stays() -> None:
    w = world(replicas=4)
    w = at_weight(w, "two", 25)
    w.room = {"two": 1}
    w.run(60)
    assert w.weight("two") == 25
    assert w.condition("Stalled") == ("True", NO_ROOM)
    assert "1 of 2 pods" in w.status.rollout.message
    w.room = {}
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.condition("Stalled")[0] == "False"


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
    w = at_weight(world(weight(25, "20s"), weight(50, "20s"), replicas=2), "two", 25)
    w.spec = replace(w.spec, replicas=4)
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


# ------------------------------------------------------------------------------------ lost status


@pytest.mark.parametrize("moment", ["rest", "25", "bake", "rolled back"])
def test_s54_stable_is_known_again_from_the_records(moment: str) -> None:
    w = world(bake="300s", candidate=Model(error_rate=0.5 if moment == "rolled back" else 0.0))
    serving = "one"
    match moment:
        case "25":
            at_weight(w, "two", 25)
        case "bake":
            at_weight(w, "two", 100)
            serving = "two"
        case "rolled back":
            w.release("two").run_until(lambda w: w.state() == "RolledBack")
    w.run(1)
    pods = list(w.deployments[serving].asked)
    w.lose_status()
    w.run(0.5)
    assert w.status.stable is not None
    assert w.status.stable.revision == serving
    assert w.weight(serving) >= 95, "no first create: what was in mid-canary begins again"
    assert w.deployments[serving].asked == pods, "no restart"
    w.run(300)
    assert w.weight("two") == (0 if moment in ("rest", "rolled back") else 100)
    assert w.deployments[w.status.stable.revision].asked


def test_s54_a_status_lost_with_the_first_revision_on_its_way_is_a_first_create() -> None:
    w = World(spec(analysis=ANALYSIS), {"one": Model()}).run(0.5)
    w.lose_status()
    w.serving()
    assert w.route() == {"one": 100}


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
