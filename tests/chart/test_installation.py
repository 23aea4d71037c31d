"""The chart on a real API server: what it may do there, and what stays when it goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_operator.adapters import kube
from tests.apiserver.control_plane import ControlPlane, KubectlError
from tests.chart.conftest import CHART, NAMESPACE, RELEASE, Helm, HelmError, Render, only
from tests.unit.api.manifests import minimal

_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-model-operator"
# What the engine does with each kind; nothing else is allowed.
_USED: dict[kube.Resource, set[str]] = {
    kube.MODEL_DEPLOYMENT: {"get", "list", "watch"},
    kube.MODEL_REVISION: {"get", "list", "watch", "create", "delete"},
    kube.METRIC_SOURCE: {"list", "watch"},
    kube.DEPLOYMENT: {"get", "list", "watch", "create", "patch", "delete"},
    kube.SERVICE: {"get", "list", "watch", "create", "patch", "delete"},
    kube.DISRUPTION_BUDGET: {"get", "list", "watch", "create", "patch", "delete"},
    kube.HTTP_ROUTE: {"get", "list", "watch", "create", "patch", "delete"},
    kube.POD: {"list", "watch"},
    kube.EVENT: {"create"},
    kube.SECRET: set(),
}
_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server that has never seen the project."""
    with ControlPlane(tmp_path_factory.mktemp("bare"), crds=False) as running:
        running.kubectl("create", "namespace", NAMESPACE)
        running.kubectl(
            "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"
        )
        yield running


@pytest.fixture(scope="module")
def installed(bare: ControlPlane, helm: Helm) -> ControlPlane:
    """The same with the chart's release."""
    _install(bare, helm)
    return bare


def _where(api: ControlPlane) -> tuple[str, ...]:
    return ("--namespace", NAMESPACE, "--kubeconfig", str(api.kubeconfig))


def _install(api: ControlPlane, helm: Helm, chart: Path = CHART) -> None:
    helm("upgrade", "--install", RELEASE, str(chart), *_where(api))


def _may(
    api: ControlPlane,
    verb: str,
    resource: kube.Resource,
    *,
    subresource: str = "",
    namespace: str = "default",
) -> bool:
    """Ask the API server's own authorizer about the operator's account."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": _ACCOUNT,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {
                "verb": verb,
                "group": resource.group,
                "resource": resource.plural,
                "subresource": subresource,
                "namespace": namespace if resource.namespaced else "",
            },
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    allowed: bool = api.request("POST", path, review)["status"]["allowed"]
    return allowed


def test_the_pod_is_admitted_where_pod_security_is_restricted(
    installed: ControlPlane, render: Render
) -> None:
    template = only(render(), "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**pod["metadata"], "name": "operator"}
    create = ("create", "--dry-run=server", "--namespace", NAMESPACE, "-f", "-")
    installed.kubectl(*create, stdin=json.dumps(pod))

    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        installed.kubectl(*create, stdin=json.dumps(pod))


@pytest.mark.parametrize("resource", kube.RESOURCES.values(), ids=lambda resource: resource.kind)
def test_the_operator_may_do_what_it_does_and_nothing_else(
    installed: ControlPlane, resource: kube.Resource
) -> None:
    allowed = {verb for verb in _VERBS if _may(installed, verb, resource)}

    assert allowed == _USED[resource]


def test_the_operator_may_write_status_and_nothing_else_of_what_users_own(
    installed: ControlPlane,
) -> None:
    for kind in (kube.MODEL_DEPLOYMENT, kube.MODEL_REVISION):
        allowed = {v for v in _VERBS if _may(installed, v, kind, subresource="status")}
        assert allowed == {"update"}


def test_secrets_are_read_in_the_operators_namespace_only(installed: ControlPlane) -> None:
    assert _may(installed, "get", kube.SECRET, namespace=NAMESPACE)
    assert not _may(installed, "get", kube.SECRET)
    assert not _may(installed, "list", kube.SECRET, namespace=NAMESPACE)


@pytest.mark.parametrize(
    ("verb", "resource", "subresource"),
    [
        ("create", kube.POD, "exec"),
        ("get", kube.Resource("v1", "ConfigMap", "configmaps"), ""),
        ("update", kube.Resource("v1", "Node", "nodes", namespaced=False), ""),
        ("impersonate", kube.Resource("v1", "ServiceAccount", "serviceaccounts"), ""),
        ("create", kube.Resource("rbac.authorization.k8s.io/v1", "Role", "roles"), ""),
        (
            "patch",
            kube.Resource(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                "customresourcedefinitions",
                namespaced=False,
            ),
            "",
        ),
    ],
    ids=lambda part: part.kind if isinstance(part, kube.Resource) else part,
)
def test_the_operator_may_not_touch_what_is_not_its_own(
    installed: ControlPlane, verb: str, resource: kube.Resource, subresource: str
) -> None:
    assert not _may(installed, verb, resource, subresource=subresource)


def test_users_objects_outlive_the_release_and_are_there_for_the_next_one(
    installed: ControlPlane, helm: Helm
) -> None:
    installed.kubectl("apply", "-f", "-", stdin=json.dumps(minimal("survivor")))

    helm("uninstall", RELEASE, *_where(installed))
    kept = installed.kubectl("get", "mdep", "survivor", "-o", "name")
    _install(installed, helm)

    assert kept.strip() == "modeldeployment.modeldeployment.dev/survivor"
    installed.kubectl("delete", "mdep", "survivor")


def test_an_upgrade_of_the_chart_upgrades_the_crds(
    installed: ControlPlane, helm: Helm, tmp_path: Path
) -> None:
    newer = tmp_path / "model-operator"
    shutil.copytree(CHART, newer)
    file = newer / "files" / "crds" / "modeldeployment.dev_modeldeployments.yaml"
    crd = yaml.safe_load(file.read_text())
    spec: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    spec["spec"]["properties"]["newField"] = {"type": "string"}
    file.write_text(yaml.safe_dump(crd))

    _install(installed, helm, newer)

    assert "newField" in installed.kubectl("get", "crd", crd["metadata"]["name"], "-o", "yaml")


def test_crds_that_were_applied_by_hand_are_taken_over_when_asked(
    bare: ControlPlane, helm: Helm, installed: ControlPlane
) -> None:
    """As the chart's README says."""
    helm("uninstall", RELEASE, *_where(bare))
    crds = [str(path) for path in (CHART / "files" / "crds").glob("*.yaml")]
    for path in crds:
        installed.kubectl("delete", "-f", path)
    for path in crds:
        installed.kubectl("create", "-f", path)

    with pytest.raises(HelmError, match="invalid ownership metadata"):
        _install(bare, helm)
    helm("upgrade", "--install", RELEASE, str(CHART), *_where(bare), "--take-ownership")

    owner = "{.metadata.annotations.meta\\.helm\\.sh/release-name}"
    said = bare.kubectl("get", "-f", crds[0], "-o", f"jsonpath={owner}")
    assert said == RELEASE
