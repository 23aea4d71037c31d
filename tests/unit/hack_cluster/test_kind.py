"""The cluster that is asked for, and what is read of the one that is there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from hack.cluster.addons import GATEWAY_NODE_PORT, PROMETHEUS_NODE_PORT, manifests, render
from hack.cluster.kind import Node, describe_pods, is_ready_since, kind_config, parse_nodes
from hack.cluster.layout import DEFAULT_CLUSTER, Layout, cache_root
from hack.cluster.state import Ports


def test_the_cluster_has_one_control_plane_and_two_workers_of_one_image() -> None:
    text = kind_config("x", "node:v1", Ports(1, 2, 3), Path("/inbox-of-the-machine"))

    config = yaml.safe_load(text)

    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    assert {node["image"] for node in config["nodes"]} == {"node:v1"}
    assert config["networking"] == {"apiServerAddress": "127.0.0.1", "apiServerPort": 1}


def test_gateway_and_prometheus_are_published_on_the_loopback_only() -> None:
    config = yaml.safe_load(kind_config("x", "node:v1", Ports(1, 2, 3), Path("/i")))

    published = {
        mapping["containerPort"]: (mapping["listenAddress"], mapping["hostPort"])
        for node in config["nodes"]
        for mapping in node.get("extraPortMappings", [])
    }

    assert published == {
        GATEWAY_NODE_PORT: ("127.0.0.1", 2),
        PROMETHEUS_NODE_PORT: ("127.0.0.1", 3),
    }


def test_the_published_node_ports_are_those_of_the_services() -> None:
    services = {
        document["metadata"]["name"]: document["spec"]["ports"][0]["nodePort"]
        for document in yaml.safe_load_all(manifests())
        if document["kind"] == "Service"
    }

    assert services == {"gateway": GATEWAY_NODE_PORT, "prometheus": PROMETHEUS_NODE_PORT}


def test_manifests_are_filled_in_and_other_dollars_stay() -> None:
    assert render("image: ${IMAGE} $1:$2 ${lower}", {"IMAGE": "x"}) == "image: x $1:$2 ${lower}"
    with pytest.raises(KeyError, match="IMAGE"):
        render("${IMAGE}", {})


def test_prometheus_scrapes_every_two_seconds_and_no_pod_twice() -> None:
    [config] = [
        yaml.safe_load(document["data"]["prometheus.yml"])
        for document in yaml.safe_load_all(manifests())
        if document["kind"] == "ConfigMap"
    ]
    selectors = [
        discovery["selectors"][0]["label"]
        for job in config["scrape_configs"]
        for discovery in job["kubernetes_sd_configs"]
    ]

    assert config["global"]["scrape_interval"] == "2s"
    assert selectors == [
        "app.kubernetes.io/managed-by=model-operator",
        "app.kubernetes.io/managed-by!=model-operator",
    ]


def test_nodes_are_listed_with_the_control_plane_first() -> None:
    listed = "x-worker2 exited\nx-worker running\nx-control-plane running\n"

    assert parse_nodes(listed) == (
        Node("x-control-plane", running=True),
        Node("x-worker", running=True),
        Node("x-worker2", running=False),
    )
    assert parse_nodes("") == ()


def node_json(status: str, heartbeat: str) -> str:
    ready = {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat}
    pressure = {"type": "DiskPressure", "status": "True", "lastHeartbeatTime": heartbeat}
    return json.dumps({"status": {"conditions": [pressure, ready]}})


@pytest.mark.parametrize(
    ("status", "heartbeat", "ready"),
    [
        ("True", "2026-01-01T10:00:00Z", True),
        ("True", "2026-01-01T09:59:59Z", False),  # said before it was stopped
        ("False", "2026-01-01T10:00:01Z", False),
        ("Unknown", "2026-01-01T10:00:01Z", False),
    ],
)
def test_a_node_is_ready_only_by_its_word_after_the_start(
    status: str, heartbeat: str, *, ready: bool
) -> None:
    began = datetime(2026, 1, 1, 10, 0, 0, tzinfo=UTC)

    assert is_ready_since(node_json(status, heartbeat), began) is ready


def test_a_node_without_conditions_is_not_ready() -> None:
    assert not is_ready_since("{}", datetime(2026, 1, 1, tzinfo=UTC))


def test_ready_pods_are_counted() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    starting = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    pending: dict[str, object] = {"status": {}}

    assert describe_pods(json.dumps({"items": [ready, starting, pending]})) == (1, 3)


def test_the_cache_follows_the_environment() -> None:
    assert cache_root({"HOME": "/home/a"}) == Path("/home/a/.cache/model-operator")
    assert cache_root({"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}) == Path("/c/model-operator")


def test_clusters_of_other_names_keep_their_state_apart() -> None:
    default, side = Layout(Path("/c")), Layout(Path("/c"), "side")

    assert default.cluster == DEFAULT_CLUSTER
    assert default.kubeconfig == Path("/c/cluster/kubeconfig")
    assert side.kubeconfig == Path("/c/cluster-side/kubeconfig")
    assert default.parts == side.parts
    assert default.host_state == side.host_state


def test_a_cache_too_deep_for_a_socket_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="set XDG_CACHE_HOME"):
        _ = Layout(Path("/" + "x" * 100)).engine_socket
