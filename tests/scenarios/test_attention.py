"""What needs a person is said: `Stalled`, with the reason, and nothing goes on in silence."""

from __future__ import annotations

from model_operator.api.samples import Failure, FailureKind
from model_operator.api.types import replace
from model_operator.core import observed as seen
from tests.builders import spec
from tests.scenarios.staged import ANALYSIS, at_weight, world
from tests.scenarios.world import Model, World


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
