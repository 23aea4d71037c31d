"""What values do, and which ones are refused before anything is installed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from model_operator.settings import read_settings
from tests.chart.conftest import CHART, NAMESPACE, Helm, HelmError, Objects, Render, only

_DIGEST = "sha256:" + "ab" * 32


def _container(objects: Objects) -> dict[str, Any]:
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    result: dict[str, Any] = container
    return result


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector["matchLabels"]
    return wanted.items() <= labels.items()


def _environment(objects: Objects) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in _container(objects)["env"]}


def test_the_chart_passes_helms_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each value by its path, such as `image.tag`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def test_the_readme_names_every_value_with_its_default() -> None:
    values = _leaves(yaml.safe_load((CHART / "values.yaml").read_text()))
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE
    )

    documented = [(name, yaml.safe_load(default)) for name, default in rows]

    assert documented == list(values.items())


def test_every_object_of_the_schema_is_closed() -> None:
    """A misspelt value is an error at every level that the chart itself defines."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def check(part: dict[str, Any], content: dict[str, Any], path: str) -> None:
        if "properties" not in part:  # a Kubernetes type, which the API server knows better
            return
        assert part["additionalProperties"] is False, path
        assert set(content) <= set(part["properties"]), path
        for name, value in content.items():
            if isinstance(value, dict):
                check(part["properties"][name], value, f"{path}.{name}")

    check(schema, values, "")


def test_the_defaults_render_two_operators_that_can_roll_back(render: Render) -> None:
    objects = render()

    assert sorted(each["kind"] for each in objects) == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterRoleBinding",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    ]
    assert only(objects, "Deployment")["spec"]["replicas"] == 2
    assert _container(objects)["image"] == "localhost/model-operator:dev"
    assert _environment(objects)["MODEL_OPERATOR_SERVER_IMAGE"] == "localhost/model-server:dev"
    assert "MODEL_OPERATOR_TEST_DISABLE_ROLLBACK" not in _environment(objects)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"repository": "r.example/op", "tag": "1.2"}, "r.example/op:1.2"),
        ({"tag": ""}, "localhost/model-operator:0.1.0"),
        ({"digest": _DIGEST}, f"localhost/model-operator@{_DIGEST}"),
    ],
)
def test_a_digest_wins_over_a_tag_and_a_tag_over_the_charts_version(
    render: Render, image: dict[str, str], expected: str
) -> None:
    assert _container(render({"image": image}))["image"] == expected


def test_settings_reach_the_operator_as_environment(render: Render) -> None:
    objects = render(
        {
            "server": {"image": f"r.example/server@{_DIGEST}"},
            "logLevel": "debug",
            "watchNamespaces": ["vision", "speech"],
            "env": {"MODEL_OPERATOR_RELIST_SECONDS": "60"},
            "testing": {"disableRollback": True},
        }
    )

    settings = read_settings({name: value or "" for name, value in _environment(objects).items()})
    assert settings.server.image == f"r.example/server@{_DIGEST}"
    assert settings.telemetry.log_level == "debug"
    assert settings.cluster.namespaces == ("vision", "speech")
    assert settings.engine.relist_s == 60
    assert not settings.engine.rollback_enabled


def test_the_operator_listens_where_the_probes_and_the_scrapes_go(render: Render) -> None:
    objects = render()

    settings = read_settings({name: value or "" for name, value in _environment(objects).items()})
    assert _container(objects)["ports"] == [
        {"name": "metrics", "containerPort": settings.telemetry.port}
    ]
    assert settings.engine.rollback_enabled
    for probe in ("livenessProbe", "readinessProbe"):
        assert _container(objects)[probe]["httpGet"]["port"] == "metrics"


def test_with_namespaces_named_it_has_rights_in_no_other_one(render: Render) -> None:
    objects = render({"watchNamespaces": ["vision", "speech"]})

    bound = {
        (each["roleRef"]["name"], each["metadata"].get("namespace"))
        for each in objects
        if each["kind"] in ("RoleBinding", "ClusterRoleBinding")
    }
    assert bound == {
        ("models-model-operator", "vision"),
        ("models-model-operator", "speech"),
        ("models-model-operator-cluster", None),
        ("models-model-operator-own", NAMESPACE),
    }


def test_where_it_runs_can_be_chosen(render: Render) -> None:
    spread = [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]
    objects = render(
        {
            "topologySpreadConstraints": spread,
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "imagePullSecrets": ["registry"],
            "podLabels": {"team": "serving"},
            "podAnnotations": {"a": "b"},
            "serviceAccount": {"name": "operator", "annotations": {"role": "metrics"}},
        }
    )

    template = only(objects, "Deployment")["spec"]["template"]
    pod = template["spec"]
    assert pod["topologySpreadConstraints"] == spread
    assert pod["nodeSelector"] == {"pool": "system"}
    assert pod["tolerations"] == [{"key": "system", "operator": "Exists"}]
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert template["metadata"]["labels"]["team"] == "serving"
    assert template["metadata"]["annotations"]["a"] == "b"
    assert pod["serviceAccountName"] == "operator"
    assert only(objects, "ServiceAccount")["metadata"]["annotations"] == {"role": "metrics"}
    subjects = [subject["name"] for each in objects for subject in each.get("subjects", ())]
    assert subjects == ["operator"] * 3


def test_an_upgrade_and_a_drain_leave_one_that_can_lead(render: Render) -> None:
    objects = render()

    deployment = only(objects, "Deployment")["spec"]
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    budget = only(objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert _selects(budget["selector"], deployment["template"]["metadata"]["labels"])


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_budget_never_keeps_the_only_operator_from_being_drained(
    render: Render, replicas: int
) -> None:
    objects = render({"replicas": replicas})

    assert only(objects, "Deployment")["spec"]["replicas"] == replicas
    assert not [each for each in objects if each["kind"] == "PodDisruptionBudget"]


def test_each_pod_takes_part_in_the_election_of_its_own_release(render: Render) -> None:
    objects = render()

    (named,) = (each for each in _container(objects)["env"] if each["name"] == "POD_NAME")
    assert named["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    settings = read_settings({name: value or "" for name, value in _environment(objects).items()})
    (own,) = (each for each in objects if each["kind"] == "Role")
    (mine,) = (rule for rule in own["rules"] if "resourceNames" in rule)
    assert settings.lease.enabled
    assert mine["resourceNames"] == [settings.lease.name] == ["models-model-operator"]


def test_its_pods_are_spread_over_nodes_and_zones_by_default(render: Render) -> None:
    template = only(render(), "Deployment")["spec"]["template"]

    (nodes,) = template["spec"]["topologySpreadConstraints"]
    assert nodes["topologyKey"] == "kubernetes.io/hostname"
    # NB: a cluster of one node must be able to run it
    assert nodes["whenUnsatisfiable"] == "ScheduleAnyway"
    anti_affinity = template["spec"]["affinity"]["podAntiAffinity"]
    (zones,) = anti_affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert zones["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    for selector in (nodes["labelSelector"], zones["podAffinityTerm"]["labelSelector"]):
        assert _selects(selector, template["metadata"]["labels"])


def test_a_given_affinity_takes_the_place_of_the_default(render: Render) -> None:
    given: dict[str, Any] = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}
    }
    pod = only(render({"affinity": given}), "Deployment")["spec"]["template"]["spec"]
    assert pod["affinity"] == given


def test_the_users_roles_can_be_left_out(render: Render) -> None:
    objects = render({"rbac": {"aggregate": False}})

    roles = {each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"}
    assert roles == {"models-model-operator", "models-model-operator-cluster"}


def test_crds_are_rendered_as_they_are_committed(render: Render) -> None:
    rendered = [each for each in render(crds=True) if each["kind"] == "CustomResourceDefinition"]

    assert {each["metadata"]["name"].split(".")[0] for each in rendered} == {
        "modeldeployments",
        "modelrevisions",
        "metricsources",
    }
    for crd in rendered:
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert "{{" not in crd["metadata"]["name"]


@pytest.mark.parametrize(
    "values",
    [
        {"imagePullPolicy": "Always"},
        {"image": {"pullPolicy": "Sometimes"}},
        {"image": {"digest": "sha256:abc"}},
        {"image": {"tag": "a b"}},
        {"image": {"name": "x"}},
        {"server": {"image": ""}},
        {"server": {"image": None}},
        {"logLevel": "verbose"},
        {"resources": {"limit": {"memory": "1Gi"}}},
        {"resources": {"limits": {"memory": "lots"}}},
        {"networkPolicy": {"egress": True}},
        {"networkPolicy": {"metricsFrom": [{"namespace": "monitoring"}]}},
        {"networkPolicy": {"egress": {"apiServerPorts": []}}},
        {"networkPolicy": {"egress": {"apiServerPorts": ["https"]}}},
        {"topologySpreadConstraints": [{"topologyKey": "zone"}]},
        {"crds": {"install": "yes"}},
        {"testing": {"disableRollback": "true"}},
        {"tolerations": {"key": "a"}},
        {"nodeSelector": {"a": 1}},
        {"serviceAccount": {"name": "Operator"}},
        {"replicas": "2"},
        {"replicas": -1},
        {"replicaCount": 2},
        {"watchNamespaces": ["Vision"]},
        {"watchNamespaces": "vision"},
        {"env": {"LOG_LEVEL": "debug"}},
        {"env": {"MODEL_OPERATOR_WORKERS": 4}},
    ],
    ids=str,
)
def test_values_that_mean_nothing_are_refused(render: Render, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match="don't meet the specifications of the schema"):
        render(values)
