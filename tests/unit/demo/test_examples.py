from pathlib import Path
from typing import Any

import pytest
import yaml

from model_operator.adapters.promql import parse
from model_operator.api.parse import parse_metric_source, parse_spec
from model_operator.api.types import PODS_SOURCE
from model_operator.core.plan import Subject, Unusable, compile_plan

EXAMPLES = Path(__file__).parents[3] / "examples"


def manifests(kind: str) -> list[Any]:
    """Every example of `kind`, with its file's name as the test's id."""
    return [
        pytest.param(manifest, id=path.name)
        for path in sorted(EXAMPLES.glob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text())
        if manifest["kind"] == kind
    ]


@pytest.mark.parametrize("manifest", manifests("ModelDeployment"))
def test_every_model_deployment_is_one_that_the_operator_accepts(manifest: dict[str, Any]) -> None:
    spec = parse_spec(manifest)

    assert spec.model.uri
    assert spec.rollout.steps


@pytest.mark.parametrize("manifest", manifests("ModelDeployment"))
def test_every_query_can_be_asked(manifest: dict[str, Any]) -> None:
    name = manifest["metadata"]["name"]
    analysis = parse_spec(manifest).rollout.analysis

    plan = compile_plan(analysis, Subject("default", name, f"{name}-a", f"{name}-b"))

    assert plan.tests
    assert not [test for test in plan.tests if isinstance(test, Unusable)]
    for query in (query for test in plan.tests for query in test.queries):
        if query.source == PODS_SOURCE:
            parse(query.text)


@pytest.mark.parametrize("manifest", manifests("MetricSource"))
def test_every_metric_source_is_one_that_the_operator_accepts(manifest: dict[str, Any]) -> None:
    assert parse_metric_source(manifest).spec.prometheus.url


def test_a_named_metric_source_is_in_the_same_file() -> None:
    for path in EXAMPLES.glob("*.yaml"):
        objects = list(yaml.safe_load_all(path.read_text()))
        sources = {o["metadata"]["name"] for o in objects if o["kind"] == "MetricSource"}
        for spec in (parse_spec(o) for o in objects if o["kind"] == "ModelDeployment"):
            assert spec.rollout.analysis.metric_source in {PODS_SOURCE, *sources}


def test_one_example_has_no_analysis_and_one_a_prometheus() -> None:
    deployments = [parameter.values[0] for parameter in manifests("ModelDeployment")]

    assert [m for m in deployments if "rollout" not in m["spec"]]
    assert manifests("MetricSource")
