"""Too few pods, or none: a weight waits for its capacity, and never goes on without it."""

from __future__ import annotations

from model_operator.api.types import replace
from model_operator.core.observed import NO_ROOM
from tests.builders import pause, weight
from tests.scenarios.staged import at_weight, world


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


def test_pods_that_are_lost_at_a_weight_stop_its_clock_until_they_are_back() -> None:
    w = at_weight(world(weight(50, "30s"), replicas=4), "two", 50).run(10)
    w.room = {"two": 1}
    w.run(300)
    assert w.weight("two") == 50, "the weight stays"
    assert w.condition("Stalled") == ("True", NO_ROOM)
    assert "1 of 2 pods" in w.status.rollout.message
    w.room = {}
    took = w.run_until(lambda w: w.weight("two") == 100)
    assert 18 <= took <= 25, "of thirty seconds ten had counted"


def test_pods_that_are_lost_for_good_end_the_rollout_at_its_deadline() -> None:
    w = at_weight(world(weight(50, "30s"), replicas=4, deadline="60s"), "two", 50).run(10)
    w.room = {"two": 1}
    w.run_until(lambda w: w.state() == "RolledBack", within_s=65)
    assert w.status.rolled_back[-1].reason == "ProgressDeadlineExceeded"


def test_s32_pods_that_are_lost_at_a_pause_do_not_end_it() -> None:
    w = world(weight(50), pause(), replicas=4, deadline="60s").release("two")
    w.run_until(lambda w: w.state() == "Paused")
    w.room = {"two": 1}
    w.run(900)
    assert w.state() == "Paused"
    assert w.weight("two") == 50


def test_s23_the_way_back_waits_for_room_as_long_as_it_takes() -> None:
    w = world(bake="300s", bake_replicas=1, replicas=4, deadline="60s")
    w = at_weight(w, "two", 100).run(10)
    w.room = {"one": 1}
    w.release("one").run_until(lambda w: w.weight("one") == 25)
    w.run(2)
    before = w.writes
    w.run(900)
    assert w.route() == {"one": 25, "two": 75}, "nobody wants the traffic back at two"
    assert w.writes == before, "and to wait is no reason to write"
    assert w.condition("Stalled") == ("True", NO_ROOM)
    w.room = {}
    w.run_until(lambda w: w.weight("one") == 100)


def test_s35_stable_keeps_its_pods_until_what_it_takes_over_is_drained() -> None:
    w = at_weight(world(weight(50, "60s"), replicas=4), "two", 50)
    w.spec = replace(w.spec, replicas=2)  # by an autoscaler that sees half of the traffic
    w.run(5)
    w.models["two"].error_rate = 0.5
    w.run_until(lambda w: w.weight("two") == 0)
    for _ in range(6):
        assert w.ready("one") == 4, "all of the traffic comes back at once"
        w.tick()
    w.run_until(lambda w: set(w.deployments) == {"one"})
    w.run(1)
    assert w.ready("one") == 2


def test_s20_stable_keeps_its_pods_while_a_third_takes_the_seconds_place() -> None:
    w = at_weight(world(weight(50, "60s"), replicas=4), "two", 50)
    w.spec = replace(w.spec, replicas=2)
    w.run(5)
    w.release("three")
    while "two" in w.deployments:
        assert w.ready("one") >= 4
        w.tick()


def test_s26_a_route_deleted_while_a_revision_drains_leaves_nothing_behind() -> None:
    w = at_weight(world(), "two", 25)
    w.release("one").run(0.25)
    w.weights = None
    w.run(1)
    assert "two" in w.deployments, "it is drained all the same"
    w.run(20)
    assert set(w.deployments) == {"one"}
    assert [share.revision for share in w.status.traffic] == ["one"]
