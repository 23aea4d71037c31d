"""The decision before a candidate's first request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model_operator.api.times import format_time
from model_operator.api.types import (
    CandidateStatus,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    PreflightPolicy,
    Signature,
    StableStatus,
    Tensor,
)
from model_operator.api.types import replace as change
from model_operator.core.decision import Decision, RolledBack, StepEntered
from model_operator.core.observed import Observed, Route, Target, Workload
from model_operator.core.preflight import uncompared
from model_operator.core.rollout import decide
from model_operator.core.signatures import Signatures
from tests.builders import NOW, pause, spec, weight

OLD, NEW = "digits-old", "digits-new"
X = Tensor(name="x", datatype="FP32", shape=(-1, 64))
PLAIN = Signature(inputs=(X,), outputs=(Tensor(name="y", datatype="FP32", shape=(-1, 10)),))
OTHER = Signature(inputs=(X,), outputs=(Tensor(name="y", datatype="FP32", shape=(-1, 12)),))

STATUS = ModelDeploymentStatus(
    stable=StableStatus(revision=OLD),
    candidate=CandidateStatus(
        revision=NEW,
        start_time=format_time(NOW - 10),
        waiting_since_time=format_time(NOW - 10),
        floor_replicas=2,
    ),
)
WORLD = Observed(
    name="digits",
    generation=2,
    target=Target(NEW, "sha256:2"),
    workloads={OLD: Workload(2, 2), NEW: Workload(2, 2)},
    route=Route(weights={OLD: 100}, accepted=True),
)


def allowing(wanted: ModelDeploymentSpec, signature: Any) -> ModelDeploymentSpec:
    rollout = change(wanted.rollout, preflight=PreflightPolicy(signature=signature))
    return change(wanted, rollout=rollout)


def decided(
    signatures: Signatures,
    wanted: ModelDeploymentSpec | None = None,
    status: ModelDeploymentStatus = STATUS,
) -> Decision:
    return decide(wanted or spec(), status, replace(WORLD, signatures=signatures), None, NOW)


def test_a_compatible_candidate_gets_its_first_weight() -> None:
    decision = decided(Signatures({OLD: PLAIN, NEW: PLAIN}))

    assert decision.transitions == (StepEntered(NEW, 0, 5),)


def test_another_signature_is_refused_before_any_weight() -> None:
    decision = decided(Signatures({OLD: PLAIN, NEW: OTHER}))

    (gone,) = decision.transitions
    assert isinstance(gone, RolledBack)
    assert (gone.revision, gone.reason) == (NEW, "SignatureChanged")
    for part in (OLD, "output 'y'", "[-1, 12]", "[-1, 10]", "spec.rollout.preflight.signature"):
        assert part in gone.message
    assert decision.plan.weights == {OLD: 100}


def test_it_is_refused_though_its_pods_are_not_all_there_yet() -> None:
    world = replace(WORLD, workloads={OLD: Workload(2, 2), NEW: Workload(2, 1)})
    known = replace(world, signatures=Signatures({OLD: PLAIN, NEW: OTHER}))

    decision = decide(spec(weight(60)), STATUS, known, None, NOW)

    assert [type(one) for one in decision.transitions] == [RolledBack]


def test_where_the_spec_allows_it_any_signature_goes_on() -> None:
    decision = decided(Signatures({OLD: PLAIN, NEW: OTHER}), allowing(spec(), "Any"))

    assert decision.transitions == (StepEntered(NEW, 0, 5),)


@pytest.mark.parametrize("awaited", [{OLD}, {NEW}, {OLD, NEW}])
def test_while_a_signature_is_read_nothing_advances(awaited: set[str]) -> None:
    known = dict.fromkeys({OLD, NEW} - awaited, PLAIN)

    decision = decided(Signatures(known, frozenset(awaited)))

    assert decision.transitions == ()
    assert decision.plan.weights == {OLD: 100}
    assert decision.status.rollout.reason == "Preflight"
    assert "signature" in decision.status.rollout.message


def test_where_the_spec_allows_any_signature_none_is_waited_for() -> None:
    decision = decided(Signatures({}, frozenset({OLD, NEW})), allowing(spec(), "Any"))

    assert decision.transitions == (StepEntered(NEW, 0, 5),)


@pytest.mark.parametrize("known", [{}, {OLD: PLAIN}, {NEW: OTHER}])
def test_what_cannot_be_read_refuses_nobody(known: dict[str, Signature]) -> None:
    decision = decided(Signatures(known))

    assert decision.transitions == (StepEntered(NEW, 0, 5),)


def test_a_signature_that_is_known_late_still_counts_in_a_pause_before_the_first_weight() -> None:
    wanted = spec(pause(), weight(50))
    assert STATUS.candidate is not None
    paused = change(STATUS, candidate=change(STATUS.candidate, step=0))

    decision = decided(Signatures({OLD: PLAIN, NEW: OTHER}), wanted, paused)

    assert [type(one) for one in decision.transitions] == [RolledBack]


def test_under_traffic_the_analysis_alone_decides() -> None:
    assert STATUS.candidate is not None
    at_5 = change(STATUS, candidate=change(STATUS.candidate, step=0, percent=5))

    decision = decided(Signatures({OLD: PLAIN, NEW: OTHER}), status=at_5)

    assert not any(isinstance(one, RolledBack) for one in decision.transitions)


def test_the_way_back_to_a_revision_that_served_is_never_refused() -> None:
    assert STATUS.candidate is not None
    warm = change(STATUS, candidate=change(STATUS.candidate, warm=True))

    decision = decided(Signatures({OLD: PLAIN, NEW: OTHER}), status=warm)

    assert not any(isinstance(one, RolledBack) for one in decision.transitions)


def test_the_very_first_revision_is_compared_with_nothing() -> None:
    world = replace(
        WORLD,
        workloads={NEW: Workload(2, 1)},
        route=None,
        signatures=Signatures({}, frozenset({NEW})),
    )

    decision = decide(spec(), change(STATUS, stable=None), world, None, NOW)

    assert decision.status.stable is not None
    assert decision.status.stable.revision == NEW


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({OLD, NEW}, None),
        ({NEW}, f"no pod told the signature of {OLD}"),
        ({OLD}, f"no pod told the signature of {NEW}"),
        (set(), f"no pod told the signature of {NEW} and {OLD}"),
    ],
)
def test_the_record_says_whose_signature_was_not_compared(
    known: set[str], words: str | None
) -> None:
    said = uncompared(Signatures(dict.fromkeys(known, PLAIN)), NEW, OLD)

    assert said is None if words is None else words in (said or "")


def test_a_revision_that_waits_for_its_turn_is_under_way() -> None:
    crowded = replace(WORLD, route=Route(weights={OLD: 70, "digits-older": 30}, accepted=True))
    decision = decide(spec(), change(STATUS, candidate=None), crowded, None, NOW)
    conditions = {c.type: (c.status, c.reason) for c in decision.status.conditions}
    assert conditions["Reconciling"] == ("True", "Queued")
