"""Manifests to types: defaults, refusals with their path, and status that nobody has to trust."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_operator.api.parse import (
    InvalidSpec,
    parse_metric_source,
    parse_model_deployment,
    parse_model_revision,
    parse_spec,
    parse_status,
    to_manifest,
)
from model_operator.api.types import (
    Decimal,
    Duration,
    ModelDeploymentStatus,
    RolloutStatus,
    SetWeight,
    Step,
)
from tests.unit.api.manifests import BROKEN, DIGEST, Broken, changed, minimal, model_deployment


def test_the_whole_example_is_parsed() -> None:
    deployment = parse_model_deployment(
        changed(model_deployment(), "metadata.resourceVersion", "17")
    )

    assert deployment.metadata.name == "digits"
    assert deployment.metadata.resource_version == "17"
    spec = deployment.spec
    assert spec.model.digest == DIGEST
    assert spec.rollout.steps[1] == Step(
        set_weight=SetWeight(percent=25, duration=Duration("300s"))
    )
    assert spec.rollout.steps[2].pause is not None
    errors, latency, versus_stable = spec.rollout.analysis.metrics
    assert errors.events is not None
    assert errors.events.max_rate == Decimal("0.01")
    assert latency.value is not None
    assert latency.value.max == Decimal("0.25")
    assert versus_stable.comparison is not None
    assert versus_stable.comparison.window.seconds == 60


def test_what_is_left_out_gets_its_default() -> None:
    spec = parse_spec(minimal())

    assert spec.replicas == 2
    assert [step.set_weight and step.set_weight.percent for step in spec.rollout.steps] == [
        5,
        25,
        50,
    ]
    assert {step.set_weight.duration.seconds for step in spec.rollout.steps if step.set_weight} == {
        120
    }
    assert spec.rollout.bake.duration.seconds == 600
    assert spec.rollout.analysis.metric_source == "pods"
    assert spec.server.execution_providers == ("CPUExecutionProvider",)


def test_defaults_inside_lists_are_applied_when_parsing() -> None:
    metric = {"name": "latency", "type": "Value", "value": {"query": "a", "max": "1"}}
    manifest = changed(minimal(), "spec.rollout.analysis.metrics", [metric])

    (parsed,) = parse_spec(manifest).rollout.analysis.metrics

    assert parsed.value is not None
    assert parsed.value.window == Duration("1m")


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_what_the_api_server_refuses_is_refused_here_with_its_path(broken: Broken) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(broken.manifest)

    assert refused.value.path == broken.found_at
    assert broken.parser in refused.value.message
    assert str(refused.value) == f"{broken.found_at}: {refused.value.message}"


def test_a_manifest_without_a_spec_is_invalid() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec\.model: is required$"):
        parse_spec({"metadata": {"name": "digits"}})


@pytest.mark.parametrize("make", [model_deployment, minimal])
def test_a_spec_comes_back_as_it_was_written(make: Any) -> None:
    spec = parse_spec(make())

    again = parse_spec({"spec": to_manifest(spec)})

    assert again == spec


def test_a_spec_that_says_only_what_differs_from_the_defaults_is_written_the_same() -> None:
    assert to_manifest(parse_spec(minimal())) == minimal()["spec"]


def test_a_status_comes_back_as_it_was_written() -> None:
    status = ModelDeploymentStatus(replicas=3, rollout=RolloutStatus(state="Held", reason="NoData"))

    written = to_manifest(status)

    assert parse_status({"status": written}) == status
    assert written["observedGeneration"] == 0, "a printer column shows a missing zero as nothing"
    assert "candidate" not in written


@pytest.mark.parametrize("manifest", [{}, {"status": None}, {"status": {}}, {"status": "lost"}])
def test_a_missing_status_is_an_empty_one(manifest: dict[str, Any]) -> None:
    assert parse_status(manifest) == ModelDeploymentStatus()


def test_a_status_of_a_newer_version_keeps_what_can_be_read() -> None:
    status = parse_status(
        {
            "status": {
                "replicas": 3,
                "stable": {"revision": "digits-1", "digest": DIGEST, "zone": "new field"},
                "rollout": {"state": "AStateOfTheFuture", "reason": "X"},
                "candidate": {"percent": 5},
                "forecast": {"new": "field"},
            }
        }
    )

    assert status.replicas == 3
    assert status.stable is not None
    assert status.stable.revision == "digits-1"
    assert status.rollout == RolloutStatus()
    assert status.candidate is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_STATUS_FIELDS = [
    "replicas",
    "conditions",
    "stable",
    "candidate",
    "traffic",
    "rolledBack",
    "rollout",
    "lastRequest",
]


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(_STATUS_FIELDS), _JSON) | _JSON)
def test_no_status_at_all_stops_the_operator(status: Any) -> None:
    assert isinstance(parse_status({"status": status}), ModelDeploymentStatus)


_SPEC_PLACES = [
    "spec",
    "spec.model",
    "spec.rollout.steps",
    "spec.rollout.steps[0]",
    "spec.rollout.analysis.metrics[0].events.maxRate",
    "spec.rollout.analysis.confidence",
    "spec.server.env",
    "spec.route",
]


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(_SPEC_PLACES), _JSON)
def test_whatever_a_spec_is_it_is_parsed_or_refused_below_the_place_at_fault(
    place: str, value: Any
) -> None:
    try:
        spec = parse_spec(changed(model_deployment(), place, value))
    except InvalidSpec as refused:
        assert refused.path.startswith(place.split("[", maxsplit=1)[0])  # noqa: PT017 -- either way is right
    else:
        assert parse_spec({"spec": to_manifest(spec)}) == spec


def test_a_revision_is_parsed_with_its_template_as_it_was_rendered() -> None:
    template = {"spec": {"containers": [{"name": "server", "image": "a:1", "future": [1]}]}}
    manifest = {
        "metadata": {"name": "digits-8f6c2d19aa", "uid": "1"},
        "spec": {"model": minimal()["spec"]["model"], "hash": "8f6c2d19aa", "template": template},
        "status": {"evidence": [{"metric": "errors"}], "verdict": "pass"},
    }

    revision = parse_model_revision(manifest)

    assert revision.spec.template == template
    assert revision.status.verdict == "pass"
    assert revision.status.evidence == ()


def test_a_metric_source_is_parsed_with_its_defaults() -> None:
    url = "http://prometheus.monitoring.svc:9090"
    source = parse_metric_source(
        {"metadata": {"name": "prometheus"}, "spec": {"prometheus": {"url": url}}}
    )

    assert source.spec.prometheus.url == url
    assert source.spec.prometheus.scrape_interval.seconds == 15
    assert source.spec.namespaces == ()


def test_a_metric_source_without_a_host_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec\.prometheus\.url: must be http"):
        parse_metric_source(
            {"metadata": {"name": "a"}, "spec": {"prometheus": {"url": "prometheus:9090"}}}
        )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("0s", 0), ("999999h", 3.6e9)],
)
def test_durations_are_in_seconds(text: str, seconds: float) -> None:
    assert Duration(text).seconds == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "-5s", "5s\n", "1d", "1us", "1000000h"])
def test_other_words_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        Duration(text)


@pytest.mark.parametrize("text", ["", ".5", "5.", "1,5", "1e999", "nan", "inf", "0x1", "1\n"])
def test_other_words_are_no_decimals(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal number"):
        Decimal(text)
