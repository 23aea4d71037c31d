"""What needs a person is said: `Stalled`, with the reason, and nothing goes on in silence."""

from __future__ import annotations

from model_operator.api.samples import Failure, FailureKind
from model_operator.api.times import format_time
from model_operator.api.types import replace
from model_operator.core import observed as seen
from tests.builders import spec, weight
from tests.scenarios.staged import ANALYSIS, at_weight, world
from tests.scenarios.world import Model, World, unavailable


def created(model: Model, **fields: object) -> World:
    return World(spec(analysis=ANALYSIS, **fields), {"one": model, "two": Model()})  # type: ignore[arg-type] # fields of a spec


def test_s28_a_gateway_that_never_answers_a_first_create_is_said_after_half_a_minute() -> None:
    w = created(Model())
    w.gateway_up = False
    w.run(20)
    assert w.condition("Stalled")[0] == "False"
    assert w.condition("Reconciling")[0] == "True"
    w.run(20)
    assert w.condition("Stalled") == ("True", "RouteNotAccepted")
    assert w.condition("Ready")[0] == "False"
    before = w.writes
    w.run(600)
    assert w.writes == before, "to wait is no reason to write"
    w.gateway_up = True
    w.run(2)
    assert w.condition("Stalled")[0] == "False"
    assert w.condition("Ready")[0] == "True"


def test_s28_a_gateway_that_falls_silent_at_rest_is_said() -> None:
    w = world().run(100)
    w.gateway_up = False
    w.run(20)
    assert w.condition("Stalled")[0] == "False", "a new gateway needs a moment"
    w.run(20)
    assert w.condition("Stalled") == ("True", "RouteNotAccepted")
    assert w.condition("Ready")[0] == "True", "what was confirmed serves on"


def test_s53_a_first_version_without_a_ready_pod_is_said_at_its_deadline() -> None:
    crash = seen.Failure("ContainerFailed", "exit code 1", definite=False)
    w = created(Model(failure=crash), deadline="60s").run(50)
    assert w.condition("Stalled")[0] == "False"
    w.run(20)
    assert w.condition("Stalled") == ("True", "ProgressDeadlineExceeded")
    assert "exit code 1" in w.status.rollout.message
    assert w.names().count("FirstFailed") == 1
    w.models["one"].failure = None  # its registry is back
    w.run(10)
    assert w.condition("Ready")[0] == "True"
    assert w.condition("Stalled")[0] == "False"


def test_s15_a_query_that_cannot_be_asked_needs_a_person() -> None:
    w = at_weight(world(), "two", 5)
    w.metrics = lambda _: Failure(FailureKind.CONFIGURATION, "two series")
    w.run(30)
    assert w.state() == "Held"
    assert w.condition("Stalled") == ("True", "ConfigurationError")
    w.metrics = None
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.condition("Stalled")[0] == "False"


def test_no_room_for_more_pods_at_rest_is_said() -> None:
    w = world()
    w.room = {"one": 2}
    w.spec = replace(w.spec, replicas=4)
    w.run(10)
    assert w.condition("Stalled") == ("True", seen.NO_ROOM)
    assert w.condition("Ready")[0] == "True"


def test_s44_a_suspension_at_rest_leaves_no_trace() -> None:
    w = world()
    w.spec = replace(w.spec, suspend=True)
    w.run(10)
    assert w.status.rollout.reason == "Suspended"
    w.spec = replace(w.spec, suspend=False)
    w.run(10)
    assert (w.state(), w.status.rollout.reason) == ("Idle", "Serving")


def test_i4_a_failed_baking_revision_is_not_kept_because_the_former_was_away_at_its_end() -> None:
    w = at_weight(world(bake="60s"), "two", 100)
    w.deployments["one"].unready = True
    w.models["three"].failure = seen.Failure("SourceUnavailable", "not there", definite=False)
    w.release("three").run(3)
    w.models["two"].error_rate = 0.5
    w.run(120)
    assert w.status.former is not None, "the bake does not end on a revision that fails"
    w.deployments["one"].unready = False
    w.run(2)
    assert w.route() == {"one": 100}
    assert [entry.revision for entry in w.status.rolled_back] == ["two"]


def test_s28_a_gateway_that_falls_silent_in_the_bake_is_said() -> None:
    w = at_weight(world(bake="60s"), "two", 50)
    w.run_until(lambda w: w.status.former is not None)
    w.gateway_up = False
    w.run(40)
    assert w.condition("Stalled") == ("True", "RouteNotAccepted")
    assert w.condition("Reconciling")[0] == "True"
    w.run(600)
    assert w.status.former is not None, "what traffic may still reach stays"
    w.gateway_up = True
    w.run_until(lambda w: w.status.former is None, within_s=10)
    assert w.condition("Stalled")[0] == "False"


def test_a_pod_without_room_beside_all_that_are_asked_for_needs_nobody() -> None:
    w = world()
    w.room = {"one": 2}
    w.deployments["one"].asked.append(w.now)  # one more, while pods are made anew
    w.run(0.25)
    assert w.condition("Stalled")[0] == "False"


def test_s53_a_restart_of_the_operator_takes_no_deadline_of_a_first_version_back() -> None:
    crash = seen.Failure("ContainerFailed", "exit code 1", definite=False)
    w = created(Model(failure=crash), deadline="60s").run(70)
    assert w.condition("Stalled")[0] == "True"
    assert w.status.candidate is not None
    waiting = replace(w.status.candidate, waiting_since_time=format_time(w.now))
    w.status = replace(w.status, candidate=waiting)  # as one does that comes anew
    w.run(5)
    assert w.condition("Stalled") == ("True", "ProgressDeadlineExceeded")
    assert w.names().count("FirstFailed") == 1


def test_s09_an_abort_whose_status_was_lost_answers_no_other_request() -> None:
    w = at_weight(world(weight(50, "60s")), "two", 50)
    before = w.status
    w.ask("abort", "two")
    w.tick()
    w.status = before
    w.ask("promote", "two")
    w.run(1)
    assert w.route() == {"one": 100}
    assert w.status.rolled_back[-1].reason == "Aborted"
    assert w.status.last_request is not None
    assert w.status.last_request.result.startswith("refused")


def test_s44_a_hold_after_a_suspension_says_what_it_waits_for() -> None:
    w = world(weight(50, "60s"))
    w.rate = 2.0
    at_weight(w, "two", 50).run(1)
    w.metrics = lambda _: unavailable()
    w.run(3)
    w.spec = replace(w.spec, suspend=True)
    w.run(1)
    w.metrics, w.spec = None, replace(w.spec, suspend=False)
    w.run(5)
    assert w.state() == "Held"
    assert w.status.rollout.reason == "InsufficientData"
