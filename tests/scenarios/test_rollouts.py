"""Rows of the scenario list that are about the decision, in virtual time.

S05, S14, S15, S17 and S19 are about what the analysis says; they are in test_evidence.py.
"""

from __future__ import annotations

import pytest

from model_operator.api.types import replace
from model_operator.core.observed import Failure
from tests.builders import pause, spec, weight
from tests.scenarios.staged import ANALYSIS, world
from tests.scenarios.world import Model, World, unavailable


def test_s01_the_first_revision_serves_without_a_canary() -> None:
    w = World(spec(analysis=ANALYSIS), {"one": Model()})
    w.run(0.5)
    assert w.route() is None, "nothing is routed before a pod is ready"
    w.serving()
    assert w.route() == {"one": 100}
    assert w.condition("Ready") == ("True", "Serving")
    assert w.names() == ["Started", "Promoted"]


def test_s02_a_good_model_gets_every_weight_in_order_and_the_old_one_stays_for_the_bake() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 100)
    w.run(5)
    assert w.weights_seen("two") == [0, 5, 25, 50, 100]
    assert w.state() == "Baking"
    assert len(w.deployments["one"].asked) == 2, "the old one stays warm"
    w.run(40)
    assert w.state() == "Idle"
    assert set(w.deployments) == {"two"}


def test_s03_exactly_the_configured_weights() -> None:
    w = world(weight(1, "60s"), weight(5), weight(25), weight(60)).release("two")
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.weights_seen("two") == [0, 1, 5, 25, 60, 100]


def test_s04_errors_roll_back_and_the_reason_has_the_numbers() -> None:
    w = world(candidate=Model(error_rate=1.0)).release("two")
    w.run_until(lambda w: w.state() == "RolledBack")
    assert w.route() == {"one": 100}
    (entry,) = w.status.rolled_back
    for part in ("errors", "100 %", "limit 1 %", "events"):
        assert part in entry.message
    assert w.condition("Stalled")[0] == "True"
    assert w.condition("Ready") == ("True", "Serving")


@pytest.mark.parametrize("at", [1.0, 4.0, 9.0])
def test_s06_an_operator_restarted_in_mid_step_holds_the_step_for_its_time(at: float) -> None:
    w = world(weight(25, "20s"), weight(50, "20s")).release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.run(at)
    w.operator_up = False
    w.run(3)
    w.restart_operator()
    w.operator_up = True
    w.run_until(lambda w: w.weight("two") == 50)
    held = w.entered("two", 50) - w.entered("two", 25)
    assert 20 <= held <= 21


def test_s07_a_pause_waits_for_its_promotion() -> None:
    w = world(weight(25), pause(), weight(50)).release("two")
    w.run(300)
    assert w.weights_seen("two") == [0, 25]
    assert w.state() == "Paused"
    w.ask("promote", "three")
    w.run(5)
    assert w.status.last_request is not None
    assert w.status.last_request.result.startswith("refused")
    w.ask("promote", "two")
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.weights_seen("two") == [0, 25, 50, 100]


def test_s09_an_aborted_rollout_can_be_tried_again_from_its_first_step() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.ask("abort", "two")
    w.run(3)
    assert w.route() == {"one": 100}
    assert w.status.rolled_back[-1].reason == "Aborted"
    w.run(60)
    assert w.weight("two") == 0, "not tried again by itself"
    w.ask("retry", "two")
    w.run_until(lambda w: w.weight("two") == 100)
    assert w.weights_seen("two") == [0, 5, 25, 0, 5, 25, 50, 100]


@pytest.mark.parametrize("percent", [5, 25, 50])
def test_s12_a_failure_rolls_back_from_any_step(percent: int) -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == percent)
    w.run(2)
    w.models["two"].error_rate = 0.5
    w.run_until(lambda w: w.state() == "RolledBack", within_s=20)
    assert w.route() == {"one": 100}


def test_s18_a_crash_loop_needs_no_metrics() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.metrics = lambda _: unavailable()
    w.run(10)
    w.deployments["two"].crash_looping = True
    w.run(0.5)
    assert w.route() == {"one": 100}
    assert w.status.rolled_back[-1].reason == "CrashLooping"


@pytest.mark.parametrize("later", [0.0, 60.0])
def test_s22_back_to_stable_is_immediate(later: float) -> None:
    w = world(candidate=Model(error_rate=0.5 if later else 0.0)).release("two")
    w.run_until(lambda w: w.weight("two") == 5)
    w.run(later)
    assert w.state() == ("RolledBack" if later else "Progressing")
    pods = list(w.deployments["one"].asked)
    w.release("one").run(0.5)
    assert w.route() == {"one": 100}
    assert w.state() == "Idle"
    assert w.condition("Ready") == ("True", "Serving")
    assert w.condition("Stalled")[0] == "False"
    assert w.deployments["one"].asked == pods, "no pod was restarted"
    w.run(30)
    assert set(w.deployments) == {"one"}


def test_s25_drift_of_the_weights_is_undone_without_a_new_analysis() -> None:
    w = world(weight(25, "30s"), weight(50)).release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.run(10)
    events = w.tests.tests["errors"].finding.samples
    w.weights = {"one": 0, "two": 100}
    w.run(1)
    assert w.route() == {"one": 75, "two": 25}
    w.run(1)
    assert w.tests.tests["errors"].finding.samples >= events
    w.run_until(lambda w: w.weight("two") == 50)


def test_s26_a_deleted_route_comes_back_with_the_present_weight() -> None:
    w = world(weight(25, "30s"), weight(50)).release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.weights = None
    w.run(0.5)
    assert w.route() == {"one": 75, "two": 25}


def test_s29_a_model_that_cannot_be_loaded_never_gets_weight() -> None:
    broken = Model(
        failure=Failure("DigestMismatch", "expected sha256:1, got sha256:2", definite=True)
    )
    w = world(candidate=broken).release("two")
    took = w.run_until(lambda w: w.state() == "RolledBack")
    assert took < 5
    assert w.weights_seen("two") == [0]
    assert "expected sha256:1, got sha256:2" in w.status.rollout.message


def test_s29_a_source_that_may_come_back_is_waited_for_until_the_deadline() -> None:
    away = Model(failure=Failure("SourceUnavailable", "connection refused", definite=False))
    w = world(candidate=away, deadline="60s").release("two")
    w.run(50)
    assert w.status.candidate is not None
    w.run(15)
    assert w.status.rolled_back[-1].reason == "ProgressDeadlineExceeded"
    assert "connection refused" in w.status.rolled_back[-1].message


def test_s30_collapsed_readiness_takes_the_weight_at_once() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 50)
    w.deployments["two"].unready = True
    took = w.run_until(lambda w: w.weight("two") == 0)
    assert took <= 0.5
    assert w.status.rolled_back[-1].reason == "ReadinessCollapsed"


def test_s33_what_lost_its_weight_keeps_its_pods_until_it_is_drained() -> None:
    w = world(candidate=Model(error_rate=0.5)).release("two")
    w.run_until(lambda w: w.state() == "RolledBack")
    assert "two" in w.deployments
    w.run(1)
    assert "two" in w.deployments, "requests may still be in flight"
    w.run(3)
    assert "two" not in w.deployments


def test_s53_a_bad_first_version_is_never_ready_and_its_mend_needs_no_canary() -> None:
    broken = Model(failure=Failure("InvalidModel", "protobuf parsing failed", definite=True))
    w = World(spec(analysis=ANALYSIS), {"one": broken, "two": Model()})
    w.run(30)
    assert w.route() is None
    assert w.condition("Ready") == ("False", "InvalidModel")
    assert w.condition("Stalled") == ("True", "InvalidModel")
    assert "protobuf parsing failed" in w.status.rollout.message
    w.release("two").run_until(lambda w: w.weight("two") == 100, within_s=10)
    assert w.weights_seen("two") == [0, 100]
    assert set(w.deployments) == {"two"}


def test_a_rollback_waits_while_no_stable_pod_could_take_the_traffic() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 50)
    w.deployments["one"].unready = True
    w.models["two"].error_rate = 0.5
    w.run(30)
    assert w.weight("two") == 50
    assert w.condition("Stalled") == ("True", "NoHealthyTarget")
    w.deployments["one"].unready = False
    w.run(1)
    assert w.route() == {"one": 100}


def test_a_late_regression_goes_back_to_the_warm_revision() -> None:
    w = world(bake="300s").release("two")
    w.run_until(lambda w: w.weight("two") == 100)
    w.run(60)
    w.models["two"].error_rate = 0.5
    w.run_until(lambda w: w.weight("one") == 100, within_s=20)
    assert w.status.rolled_back[-1].revision == "two"
    w.run(60)
    assert w.route() == {"one": 100}


def test_at_rest_nothing_is_written() -> None:
    w = world()
    w.run(10)
    before = w.writes
    w.run(600)
    assert w.writes == before


def test_a_third_revision_waits_until_the_second_has_left_the_route() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.release("three").run(0.5)
    assert w.weight("two") == 0
    w.run_until(lambda w: w.weight("three") == 100)
    assert w.weights_seen("three") == [0, 5, 25, 50, 100]
    assert w.weights_seen("two") == [0, 5, 25, 0]


def test_with_rollback_disabled_the_bad_model_stays() -> None:
    w = world(candidate=Model(error_rate=0.5))
    w.disable_rollback = True
    w.release("two").run(60)
    assert w.weight("two") == 5


def test_a_suspension_does_not_keep_a_dead_candidate_on_the_route() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 50)
    w.spec = replace(w.spec, suspend=True)
    w.run(30)
    assert w.weight("two") == 50, "nothing changes while suspended"
    w.deployments["two"].unready = True
    w.run(0.5)
    assert w.route() == {"one": 100}


def test_suspended_time_does_not_count_for_the_progress_deadline() -> None:
    w = world(deadline="60s").release("two")
    w.run(0.25)
    w.spec = replace(w.spec, suspend=True)
    w.run(300)
    w.spec = replace(w.spec, suspend=False)
    w.run_until(lambda w: w.weight("two") == 100)


def test_time_in_which_the_operator_was_down_is_no_missed_deadline() -> None:
    w = world(deadline="60s").release("two")
    w.run_until(lambda w: w.weight("two") == 5)
    w.operator_up = False
    w.run(120)
    w.restart_operator()
    w.operator_up = True
    w.run_until(lambda w: w.weight("two") == 100)


def test_when_nobody_serves_a_mended_version_can_still_take_over() -> None:
    w = world().release("two")
    w.run_until(lambda w: w.weight("two") == 25)
    w.deployments["one"].unready = True
    w.deployments["two"].unready = True
    w.run(5)
    w.release("three")
    w.run_until(lambda w: w.status.candidate is not None and w.ready("three") > 0)


def test_a_cause_that_is_still_there_is_named_when_only_the_status_was_not_written() -> None:
    w = world(candidate=Model(error_rate=1.0)).release("two")
    w.run_until(lambda w: w.weight("two") == 5)
    w.run(2)
    before = w.status
    w.run_until(lambda w: w.state() == "RolledBack")
    w.status = before  # as it is after a conflict
    w.run(0.25)
    assert w.status.rolled_back[-1].reason == "AnalysisFailed"


def test_a_failure_in_the_bake_is_said_even_when_the_former_revision_is_gone() -> None:
    w = world(bake="60s").release("two")
    w.run_until(lambda w: w.weight("two") == 100)
    w.deployments["one"].unready = True
    w.models["two"].error_rate = 0.5
    w.run(100)
    assert w.condition("Stalled") == ("True", "NoHealthyTarget")
    w.deployments["one"].unready = False
    w.run(1)
    assert w.route() == {"one": 100}, "the way back was kept"
