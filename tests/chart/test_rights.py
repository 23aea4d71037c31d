"""The operator itself with the chart's rights: each of them is needed, and no other one is."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from model_operator.adapters.kube import (
    METRIC_SOURCE,
    MODEL_REVISION,
    SECRET,
    KubeClient,
    NotFoundError,
)
from model_operator.api.labels import API_VERSION, GROUP
from tests.apiserver.engine_world import (
    Behaviour,
    World,
    condition,
    digest,
    model_deployment,
    world,
)
from tests.chart.audited import AuditedControlPlane, Call
from tests.chart.conftest import Helm
from tests.chart.rights import grants
from tests.chart.running import Installation, Operator, install

Manifest = dict[str, Any]

pytestmark = pytest.mark.timeout(180)

_RIGHTS_SETTLE_S: Final = 10.0
_POLL_S: Final = 0.02
_MERGE: Final = "application/merge-patch+json"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedControlPlane]:
    with AuditedControlPlane(tmp_path_factory.mktemp("audited")) as running:
        running.start_controllers()
        yield running


@pytest.fixture(scope="module")
def installed(
    api: AuditedControlPlane, helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """A release for the whole cluster."""
    return install(api, helm, "models", {}, tmp_path_factory.mktemp("cluster-wide"))


@pytest.fixture(scope="module")
def calls(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """What its operator asked of the API server when it had everything to do."""
    with Operator(installed, tmp_path_factory.mktemp("operator")) as running:
        asyncio.run(everything(installed, _new_namespace(installed.api)))
        assert "orbidden" not in running.log
    return installed.calls()


async def everything(installed: Installation, namespace: str) -> None:
    """A first version, a promotion, a rollback, a source with credentials, and the end."""
    async with world(installed.api.kubeconfig, namespace) as played:
        played.requests_per_s = 100.0
        await _administer_source(played.kube, installed.account.namespace)
        await played.create(model_deployment(namespace, revisionHistoryLimit=0))
        first = await played.until_ready()
        await _promoted_in_conflict(installed, played)
        await _rolled_back(played, 3)

        async def forgotten() -> bool:
            return first not in await played.revisions()

        await played.until("the first revision's record is deleted", forgotten)
        await played.change(_ask_source)
        await played.change(_new_model(4))

        async def credentials_read() -> bool:
            return any(call.resource == SECRET.plural for call in installed.calls())

        await played.until("the source's credentials are read", credentials_read)
        await played.delete(await played.mdep())

        async def gone() -> bool:
            return not await played.deployments() and not await played.revisions()

        await played.until("everything is collected", gone)


async def _promoted(played: World, seed: int) -> None:
    (old,) = await played.deployments()
    await played.change(_new_model(seed))

    async def taken_over() -> bool:
        return old not in await played.deployments()

    await played.until("the former revision is let go", taken_over)


async def _rolled_back(played: World, seed: int) -> None:
    played.behaviours[digest(seed)] = Behaviour(error_share=0.5)
    await played.change(_new_model(seed))
    bad = (await played.until_state("RolledBack"))["rolledBack"][0]["revision"]

    async def taken_down() -> bool:
        return bad not in await played.deployments()

    await played.until("the bad revision is taken down", taken_down)


async def _promoted_in_conflict(installed: Installation, played: World) -> None:
    """Edit the records of rollouts all the time, until the operator had to read one again."""

    def read_again() -> bool:
        needed = (MODEL_REVISION.plural, "get")
        return any((call.resource, call.verb) == needed for call in installed.calls())

    async def edit() -> None:
        while not read_again():
            for name in await played.revisions():
                path = MODEL_REVISION.path(played.namespace, name)
                edited = {"metadata": {"annotations": {"edited": uuid.uuid4().hex}}}
                with suppress(NotFoundError):
                    await played.kube._call("PATCH", path, body=edited, content_type=_MERGE)

    editing = asyncio.create_task(edit())
    for seed in range(10, 15):
        await _promoted(played, seed)
        if read_again():
            break
    editing.cancel()
    assert read_again()


async def _administer_source(kube: KubeClient, namespace: str) -> None:
    credentials = {"name": "prometheus", "namespace": namespace}
    data = {"token": "dG9rZW4="}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": credentials, "data": data}
    await kube.create(secret)
    reference = {"name": "prometheus", "key": "token"}
    spec = {"prometheus": {"url": "http://127.0.0.1:9", "bearerToken": reference}}
    metadata = {"name": "administered"}
    await kube.create(
        {"apiVersion": API_VERSION, "kind": METRIC_SOURCE.kind, "metadata": metadata, "spec": spec}
    )


def _ask_source(manifest: Manifest) -> None:
    manifest["spec"]["rollout"]["analysis"]["metricSource"] = "administered"


def _new_model(seed: int) -> Any:
    def edit(manifest: Manifest) -> None:
        manifest["spec"]["model"]["digest"] = digest(seed)

    return edit


def _new_namespace(api: AuditedControlPlane) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    api.kubectl("create", "namespace", name)
    return name


def test_the_charts_rights_are_enough_for_everything(calls: list[Call]) -> None:
    assert len(calls) > 100
    assert [call for call in calls if not call.allowed or call.code == HTTPStatus.FORBIDDEN] == []
    assert {call.granted_by.partition(" ")[0] for call in calls} == {"RBAC:"}


def test_the_operator_uses_every_right_that_it_has(
    installed: Installation, calls: list[Call]
) -> None:
    unused = [
        grant.right
        for grant in grants(installed)
        if not any(grant.is_used_by(call) for call in calls)
    ]

    assert unused == []


def test_the_operator_may_only_read_what_users_write(installed: Installation) -> None:
    rules = _rules(installed, _new_namespace(installed.api))
    for plural in ("modeldeployments", "modeldeployments/scale"):
        verbs = {verb for group, resource, verb in rules
                 if group in (GROUP, "*") and resource in (plural, "*")}  # fmt: skip
        assert verbs <= {"get", "list", "watch"}, plural
    assert (GROUP, "modeldeployments/status", "update") in rules


def test_without_any_one_right_a_call_of_the_operator_is_refused(
    installed: Installation, calls: list[Call]
) -> None:
    api, token = installed.api, installed.account.token
    for grant in grants(installed):
        call = next((call for call in calls if grant.is_used_by(call)), None)
        assert call is not None, f"{grant.right} is not used"
        assert api.again(call, token) != HTTPStatus.FORBIDDEN, grant.right

        api.request("PUT", grant.path, grant.without())

        assert _refused(api, call, token), f"{grant.right} is not needed"
        api.request("PUT", grant.path, grant.role)
        assert not _refused(api, call, token, wanted=False), grant.right


def _refused(api: AuditedControlPlane, call: Call, token: str, *, wanted: bool = True) -> bool:
    """Whether a call is refused, once the authoriser has heard of the changed role."""
    deadline = time.monotonic() + _RIGHTS_SETTLE_S
    while True:
        refused = api.again(call, token) == HTTPStatus.FORBIDDEN
        if refused == wanted or time.monotonic() > deadline:
            return refused
        time.sleep(_POLL_S)


def test_an_operator_of_named_namespaces_works_there_and_may_nothing_elsewhere(
    api: AuditedControlPlane, helm: Helm, tmp_path: Path
) -> None:
    # given a release for one namespace, and a model in another one
    here, elsewhere = _new_namespace(api), _new_namespace(api)
    installed = install(api, helm, "scoped", {"watchNamespaces": [here]}, tmp_path)
    api.kubectl("create", "-f", "-", stdin=json.dumps(model_deployment(elsewhere)))

    # when a model is rolled out in the one
    async def rollout() -> None:
        async with world(api.kubeconfig, here) as played:
            played.requests_per_s = 100.0
            await played.create(model_deployment(here))
            await played.until_ready()
            await _promoted(played, 2)
            assert condition(await played.status(), "Ready")["status"] == "True"

    with Operator(installed, tmp_path) as running:
        asyncio.run(rollout())
        assert "orbidden" not in running.log

    # then nothing else was asked for
    calls = installed.calls()
    assert all(call.allowed for call in calls)
    assert {call.namespace for call in calls} <= {here, installed.account.namespace, ""}
    assert {call.resource for call in calls if not call.namespace} == {METRIC_SOURCE.plural}
    # nor could it be: of the whole cluster it knows the MetricSources, and that is all
    assert _rules(installed, elsewhere) - _rules_of_anybody(api, elsewhere) == {
        (METRIC_SOURCE.group, METRIC_SOURCE.plural, verb) for verb in ("list", "watch")
    }


def _rules(installed: Installation, namespace: str) -> set[tuple[str, str, str]]:
    return _rules_as(installed.api, installed.account.username, namespace)


def _rules_of_anybody(api: AuditedControlPlane, namespace: str) -> set[tuple[str, str, str]]:
    return _rules_as(api, f"system:serviceaccount:{namespace}:default", namespace)


def _rules_as(api: AuditedControlPlane, account: str, namespace: str) -> set[tuple[str, str, str]]:
    """What the API server's authoriser lets an account do in a namespace."""
    groups = ("system:serviceaccounts", "system:authenticated")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = api.kubectl(
        "create", "--validate=false", "-f", "-", "-o", "json", f"--as={account}",
        *(f"--as-group={group}" for group in groups),
        stdin=json.dumps(review),
    )  # fmt: skip
    rules = json.loads(answer)["status"]["resourceRules"]
    return {
        each
        for rule in rules
        for each in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }
