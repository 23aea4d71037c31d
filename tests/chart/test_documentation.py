"""What the page for platform engineers shows can be used as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from model_operator.api.labels import child_labels
from model_operator.api.parse import parse_spec
from model_operator.core.pod_template import render_pod_template
from tests.chart.conftest import Render, only
from tests.unit.api.manifests import model_deployment

_PAGE = Path(__file__).parents[2] / "docs" / "tasks" / "install.md"
_BLOCKS = [
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", _PAGE.read_text(), re.DOTALL | re.MULTILINE)
]
_VALUES = [block for block in _BLOCKS if "kind" not in block]


@pytest.mark.parametrize("values", _VALUES, ids=lambda values: next(iter(values)))
def test_the_chart_takes_the_values_that_the_page_shows(
    render: Render, values: dict[str, object]
) -> None:
    assert only(render(values), "Deployment")


def test_the_page_lets_callers_in_to_the_ports_of_models() -> None:
    (policy,) = (block for block in _BLOCKS if block.get("kind") == "NetworkPolicy")

    selected = policy["spec"]["podSelector"]["matchLabels"].items()
    assert selected <= child_labels("digits", "digits-0123456789").items()
    spec = parse_spec(model_deployment())
    template = render_pod_template("digits", "digits-1", spec.model, spec.server, "server:1")
    served = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert let_in == served
