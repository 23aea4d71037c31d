"""Releases that overlap, ways back, and steps or an analysis that are edited in mid-canary."""

from __future__ import annotations

from typing import Any

import pytest

from model_operator.api.types import Decimal, Events, replace
from model_operator.core.observed import Failure
from tests.builders import pause, weight
from tests.scenarios.staged import ANALYSIS, ERRORS, at_weight, world
from tests.scenarios.world import Model, World, unavailable


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
    while w.state() != "Paused":
        never_below(w, "one", 2, 0.25)
    w.ask("promote", "three")
    while w.weight("three") < 100:
        never_below(w, "one", 2, 0.25)
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


def test_s24_evidence_of_another_weight_at_the_same_step_does_not_count() -> None:
    w = world(weight(25), pause(), weight(50)).release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.rate = 0.0
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=(weight(10, "2s"), weight(40))))
    w.run(60)
    assert w.weights_seen("two") == [0, 25, 10]
    w.rate = 100.0
    w.run_until(lambda w: w.weight("two") == 100)


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


def test_i4_edited_steps_take_no_weight_from_the_only_one_that_serves() -> None:
    w = at_weight(world(weight(5), weight(50, "300s")), "two", 50).run(2)
    w.deployments["one"].unready = True
    w.run(2)
    steps = (weight(5), weight(60))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=steps))
    w.run(5)
    assert w.weight("two") == 50
    assert w.condition("Stalled") == ("True", "NoHealthyTarget")
    w.deployments["one"].unready = False
    w.run_until(lambda w: w.weight("two") == 100)


def test_s24_a_step_that_takes_the_place_of_a_pause_is_held_for_its_own_time() -> None:
    w = world(weight(5), weight(25), pause("1h"), weight(50)).release("two")
    w.run_until(lambda w: w.state() == "Paused" and w.weight("two") == 25)
    w.run(400)
    steps = (weight(5), weight(10), weight(25, "300s"), weight(50))
    w.spec = replace(w.spec, rollout=replace(w.spec.rollout, steps=steps))
    assert w.run_until(lambda w: w.weight("two") == 50) >= 300


def test_s23_the_bake_goes_on_when_the_way_back_never_got_a_weight() -> None:
    w = at_weight(world(bake="300s"), "two", 100).run(5)
    w.gateway_up = False  # so that the former one gets none
    w.release("one").run(2)
    w.release("two").run(1)
    w.gateway_up = True
    w.run(5)
    w.models["two"].error_rate = 0.5
    w.run_until(lambda w: w.weight("one") == 100, within_s=30)


def test_s23_the_weight_of_a_warm_revision_follows_its_ready_pods_down_too() -> None:
    w = at_weight(world(bake="300s", bake_replicas=3, replicas=4), "two", 100).run(5)
    w.room["one"] = 3
    w.release("one").run_until(lambda w: w.weight("one") == 75)
    w.room["one"] = 1
    w.run(5)
    assert w.route() == {"one": 25, "two": 75}
