"""Who may call the operator, and whom it may call, where NetworkPolicies are enforced."""

from __future__ import annotations

from typing import Any

from model_operator.api.labels import child_labels
from model_operator.core.pod_template import HTTP_PORT, METRICS_PORT
from tests.chart.conftest import Render, only

_PROMETHEUS = {
    "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    "ports": [{"port": 9090, "protocol": "TCP"}],
}


def _policy(render: Render, values: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = only(render(values), "NetworkPolicy")["spec"]
    return spec


def _egress(render: Render, values: dict[str, Any]) -> list[dict[str, Any]]:
    on = {"networkPolicy": {"egress": {"enabled": True, **values.pop("egress", {})}}}
    rules: list[dict[str, Any]] = _policy(render, {**on, **values})["egress"]
    return rules


def test_by_default_only_the_port_of_health_and_metrics_is_open(render: Render) -> None:
    objects = render()

    policy = only(objects, "NetworkPolicy")["spec"]
    template = only(objects, "Deployment")["spec"]["template"]
    (port,) = template["spec"]["containers"][0]["ports"]
    assert policy["ingress"] == [{"ports": [{"port": port["name"], "protocol": "TCP"}]}]
    assert policy["policyTypes"] == ["Ingress"]
    selected = policy["podSelector"]["matchLabels"].items()
    assert selected <= template["metadata"]["labels"].items()


def test_it_can_be_left_out(render: Render) -> None:
    objects = render({"networkPolicy": {"enabled": False}})

    assert not [each for each in objects if each["kind"] == "NetworkPolicy"]


def test_who_reads_the_metrics_can_be_named(render: Render) -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}

    (rule,) = _policy(render, {"networkPolicy": {"metricsFrom": [monitoring]}})["ingress"]

    assert rule["from"] == [monitoring]


def test_with_egress_limited_it_reaches_dns_the_api_server_and_the_models_pods(
    render: Render,
) -> None:
    anywhere, pods = _egress(render, {"egress": {"apiServerPorts": [8443]}})

    assert "to" not in anywhere
    assert {(each["port"], each["protocol"]) for each in anywhere["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
        (8443, "TCP"),
    }
    (peer,) = pods["to"]
    labels = child_labels("digits", "digits-0123456789")
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert peer["namespaceSelector"] == {}
    assert pods["ports"] == [
        {"port": port, "protocol": "TCP"} for port in (HTTP_PORT, METRICS_PORT)
    ]


def test_with_namespaces_named_it_reaches_no_pods_elsewhere(render: Render) -> None:
    _, pods = _egress(render, {"watchNamespaces": ["vision", "speech"]})

    (expression,) = pods["to"][0]["namespaceSelector"]["matchExpressions"]
    assert expression == {
        "key": "kubernetes.io/metadata.name",
        "operator": "In",
        "values": ["vision", "speech"],
    }


def test_a_metrics_source_is_reached_by_a_rule_of_its_own(render: Render) -> None:
    *_, last = _egress(render, {"egress": {"rules": [_PROMETHEUS]}})

    assert last == _PROMETHEUS
