"""The chart on a real API server: what it may do there, and what stays when it goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_operator.adapters import kube
from model_operator.api.parse import parse_spec
from model_operator.core.pod_template import render_pod_template
from tests.apiserver.control_plane import ControlPlane, KubectlError
from tests.chart.conftest import CHART, NAMESPACE, RELEASE, Helm, HelmError, Render, only
from tests.unit.api.manifests import minimal, model_deployment

_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-model-operator"
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


def _pod(template: dict[str, Any]) -> dict[str, Any]:
    metadata = {**template["metadata"], "name": "admitted"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _operator_pod(render: Render) -> dict[str, Any]:
    return _pod(only(render(), "Deployment")["spec"]["template"])


def _model_pod(_render: Render) -> dict[str, Any]:
    spec = parse_spec(model_deployment())
    return _pod(render_pod_template("digits", "digits-1", spec.model, spec.server, "server:1"))


@pytest.mark.parametrize("pod_of", [_operator_pod, _model_pod])
def test_pods_are_admitted_where_pod_security_is_restricted(
    installed: ControlPlane, render: Render, pod_of: Callable[[Render], dict[str, Any]]
) -> None:
    pod = pod_of(render)
    create = ("create", "--dry-run=server", "--namespace", NAMESPACE, "-f", "-")
    installed.kubectl(*create, stdin=json.dumps(pod))

    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        installed.kubectl(*create, stdin=json.dumps(pod))


def test_the_api_server_knows_every_field_of_every_object(
    installed: ControlPlane, render: Render
) -> None:
    everything = render(
        {
            "watchNamespaces": ["default"],
            "networkPolicy": {
                "metricsFrom": [{"namespaceSelector": {}}],
                "egress": {"enabled": True, "rules": [{"ports": [{"port": 9090}]}]},
            },
        }
    )

    apply = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    said = installed.kubectl(*apply, stdin=yaml.safe_dump_all(everything))

    assert len(said.splitlines()) == len(everything)


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


def test_an_editor_of_a_namespace_works_with_models_and_not_on_what_the_operator_says(
    installed: ControlPlane,
) -> None:
    for role in ("view", "edit"):
        binding = ("create", "rolebinding", role, "--user=editor")
        installed.kubectl(*binding, f"--clusterrole={RELEASE}-model-operator-{role}")
    editor = ("--as=editor", "--validate=false")
    installed.kubectl("create", *editor, "-f", "-", stdin=json.dumps(minimal("edited")))

    installed.kubectl("scale", "--as=editor", "mdep", "edited", "--replicas=5")

    told = installed.kubectl("get", "--as=editor", "mdep", "edited", "-o=jsonpath={.spec.replicas}")
    assert told == "5"
    installed.kubectl("get", "--as=editor", "mrev")
    status = ("patch", "--as=editor", "mdep", "edited", "--subresource=status", "--type=merge")
    with pytest.raises(KubectlError, match="forbidden"):
        installed.kubectl(*status, "-p", '{"status": {"replicas": 1}}')
    with pytest.raises(KubectlError, match="forbidden"):
        installed.kubectl("delete", "--as=editor", "mrev", "recorded")
    with pytest.raises(KubectlError, match="forbidden"):
        installed.kubectl("get", "--as=editor", "msrc")
    installed.kubectl("delete", "--as=editor", "mdep", "edited")


def test_users_objects_outlive_the_release_and_are_there_for_the_next_one(
    installed: ControlPlane, helm: Helm
) -> None:
    installed.kubectl("apply", "-f", "-", stdin=json.dumps(minimal("survivor")))

    helm("uninstall", RELEASE, *_where(installed))
    kept = installed.kubectl("get", "mdep", "survivor", "-o", "name")
    _install(installed, helm)

    assert kept.strip() == "modeldeployment.modeldeployment.dev/survivor"
    installed.kubectl("delete", "mdep", "survivor")


def test_an_upgrade_of_the_chart_upgrades_the_crds_and_keeps_users_objects(
    installed: ControlPlane, helm: Helm, tmp_path: Path
) -> None:
    # given an older release, whose API lacks a field, and an object of that time
    _install(installed, helm, _chart_without("revisionHistoryLimit", tmp_path))
    limited = minimal("kept")
    limited["spec"]["revisionHistoryLimit"] = 3
    with pytest.raises(KubectlError, match="unknown field"):
        installed.kubectl("create", "-f", "-", stdin=json.dumps(limited))
    installed.kubectl("create", "-f", "-", stdin=json.dumps(minimal("kept")))
    before = json.loads(installed.kubectl("get", "mdep", "kept", "-o", "json"))

    _install(installed, helm)

    # then it is the very same object, and the new field can be set in it
    assert json.loads(installed.kubectl("get", "mdep", "kept", "-o", "json")) == before
    installed.kubectl("apply", "-f", "-", stdin=json.dumps(limited))
    limit = "jsonpath={.spec.revisionHistoryLimit}"
    assert installed.kubectl("get", "mdep", "kept", "-o", limit) == "3"
    installed.kubectl("delete", "mdep", "kept")


def _chart_without(field: str, folder: Path) -> Path:
    """The chart as it was before an optional field of the spec came."""
    older = folder / "model-operator"
    shutil.copytree(CHART, older)
    file = older / "files" / "crds" / "modeldeployment.dev_modeldeployments.yaml"
    crd = yaml.safe_load(file.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del schema["properties"][field]
    file.write_text(yaml.safe_dump(crd))
    return older


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
