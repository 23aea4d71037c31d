"""What the engine does when others change things, when nothing changes, and when it restarts."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from model_operator.adapters.kube import (
    HTTP_ROUTE,
    InvalidError,
    KubeClient,
    Listing,
)
from model_operator.core.httproute import read_weights
from model_operator.engine import run as engine_run
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.engine_world import (
    World,
    condition,
    digest,
    model_deployment,
    operator,
    resource_versions,
    settings,
    world,
)

pytestmark = pytest.mark.timeout(90)
Manifest = dict[str, Any]
PAUSED = [{"setWeight": {"percent": 25, "duration": "100ms"}}, {"pause": {}}]


async def paused_at_25(played: World) -> tuple[str, str]:
    """Given a rollout that is paused at 25 %; stable and candidate."""
    manifest = model_deployment(played.namespace)
    manifest["spec"]["rollout"]["steps"] = PAUSED
    await played.create(manifest)
    old = await played.until_ready()
    await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
    status = await played.until_state("Paused")
    return old, status["candidate"]["revision"]


async def test_s25_weights_that_others_set_are_restored_within_a_second(
    controllers: ControlPlane, namespace: str
) -> None:
    async with world(controllers.kubeconfig, namespace) as played:
        played.requests_per_s = 100
        async with operator(settings(controllers.kubeconfig, namespace)):
            old, new = await paused_at_25(played)
            started = (await played.status())["candidate"]["startTime"]
            for theirs in ({old: 0, new: 100}, {old: 100, new: 0}):
                # when somebody sets other weights
                await played.change(set_weights(theirs), HTTP_ROUTE)

                async def restored() -> bool:
                    return read_weights(await played.route()) == {old: 75, new: 25}

                # then they are put back within a second
                assert await played.until("restored", restored) < 1.0
            # and it is told, and the rollout goes on where it was
            await played.until_event("RouteDrift")
            assert (await played.status())["candidate"]["startTime"] == started


async def test_s26_a_deleted_route_comes_back_with_the_present_weights(
    controllers: ControlPlane, namespace: str
) -> None:
    async with world(controllers.kubeconfig, namespace) as played:
        played.requests_per_s = 100
        async with operator(settings(controllers.kubeconfig, namespace)):
            old, new = await paused_at_25(played)
            route = await played.route()
            # when the route is deleted
            await played.delete(route)

            async def back() -> bool:
                live = await played.route()
                return bool(live["metadata"]["uid"] != route["metadata"]["uid"])

            # then it is back at once, also on a machine that others use, with the present weights
            assert await played.until("back", back) < 3.0
            assert read_weights(await played.route()) == {old: 75, new: 25}


async def test_idle_means_no_calls_at_all(
    controllers: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    class Counting(KubeClient):
        async def _call(self, method: str, path: str, *args: Any, **kwargs: Any) -> Manifest:
            calls[f"{method} {path}"] += 1
            return await super()._call(method, path, *args, **kwargs)

    monkeypatch.setattr(engine_run, "KubeClient", Counting)
    async with world(controllers.kubeconfig, namespace) as played:
        played.requests_per_s = 100
        async with operator(settings(controllers.kubeconfig, namespace)):
            # given a finished rollout
            await played.create(model_deployment(played.namespace))
            await played.until_ready()
            await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(2)))
            await played.until_state("Baking")

            async def at_rest() -> bool:
                before = calls.total()
                await asyncio.sleep(1)
                idle = (await played.status())["rollout"]["state"] == "Idle"
                return idle and len(await played.deployments()) == 1 and calls.total() == before

            await played.until("at rest", at_rest)
            # when users go on sending requests and nobody changes anything
            versions = await resource_versions(played)
            calls.clear()
            await asyncio.sleep(5)
            # then there is not one call, neither write nor read
            assert not calls
            assert await resource_versions(played) == versions


async def test_a_full_list_of_an_unchanged_world_writes_nothing(
    controllers: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    class Counting(KubeClient):
        async def _call(self, method: str, path: str, *args: Any, **kwargs: Any) -> Manifest:
            calls[method] += 1
            return await super()._call(method, path, *args, **kwargs)

        async def list(self, resource: Any, *, namespace: str = "", selector: str = "") -> Listing:
            calls[f"list {resource.plural}"] += 1
            return await super().list(resource, namespace=namespace, selector=selector)

    monkeypatch.setattr(engine_run, "KubeClient", Counting)
    async with world(controllers.kubeconfig, namespace) as played:
        await played.create(model_deployment(played.namespace))
        async with operator(settings(controllers.kubeconfig, namespace, relist_s=1.0)):
            await played.until_ready()
            await asyncio.sleep(1.5)
            calls.clear()
            # when the world is listed again and again
            await asyncio.sleep(3)
        # then each kind took one list each time, and nothing was written or read beside that
        lists = {name: count for name, count in calls.items() if name.startswith("list")}
        assert len(lists) == 8
        assert set(lists.values()) <= {2, 3}
        assert calls["GET"] == sum(lists.values())
        assert not {"PATCH", "PUT", "POST", "DELETE"} & calls.keys()


async def test_an_operator_that_restarts_in_a_step_goes_on_in_it(
    controllers: ControlPlane, namespace: str
) -> None:
    async with world(controllers.kubeconfig, namespace) as played:
        played.requests_per_s = 100
        configured = settings(controllers.kubeconfig, namespace)
        async with operator(configured):
            old, new = await paused_at_25(played)

            async def clock_runs() -> bool:
                return "stepClockTime" in (await played.status())["candidate"]

            await played.until("the pause is confirmed", clock_runs)
        before = await resource_versions(played)
        # when the operator comes back
        async with operator(configured):
            await asyncio.sleep(2)
            # then it has changed nothing, and drift is undone as before
            assert await resource_versions(played) == before
            await played.delete(await played.route())

            async def back() -> bool:
                return read_weights(await played.route()) == {old: 75, new: 25}

            await played.until("the route is back", back)


async def test_s43_an_invalid_spec_says_where_and_the_last_good_state_serves_on(
    controllers: ControlPlane, namespace: str
) -> None:
    async with world(controllers.kubeconfig, namespace) as played:
        played.requests_per_s = 100
        async with operator(settings(controllers.kubeconfig, namespace)):
            old, new = await paused_at_25(played)
            with crd_without_rules(controllers):
                # when the spec becomes one that only the operator refuses
                await played.until("accepted", lambda: try_edit(played, invalid_grace))

                async def stalled() -> bool:
                    return bool(condition(await played.status(), "Stalled")["status"] == "True")

                await played.until("Stalled", stalled)
            # then it says where the fault is
            found = condition(await played.status(), "Stalled")
            assert found["reason"] == "InvalidSpec"
            assert "spec.server.terminationGracePeriod" in found["message"]
            # and the last good state serves on: also its route is still looked after
            await played.delete(await played.route())

            async def back() -> bool:
                return read_weights(await played.route()) == {old: 75, new: 25}

            await played.until("the route is back", back)
            assert set(await played.deployments()) == {old, new}
            # when the spec is mended
            await played.change(lambda mdep: mdep["spec"].pop("server"))

            async def recovered() -> bool:
                return bool(condition(await played.status(), "Stalled")["status"] == "False")

            # then the rollout is where it was
            await played.until("recovered", recovered)
            assert (await played.status())["candidate"]["revision"] == new


async def test_an_object_of_somebody_else_is_never_taken_over(
    controllers: ControlPlane, namespace: str
) -> None:
    async with world(controllers.kubeconfig, namespace) as played:
        # given a route of somebody else with the name that ours would have
        theirs = await played.create(
            {
                "apiVersion": HTTP_ROUTE.api_version,
                "kind": HTTP_ROUTE.kind,
                "metadata": {"name": "digits", "namespace": namespace},
                "spec": {"parentRefs": [{"name": "main"}]},
            }
        )
        async with operator(settings(controllers.kubeconfig, namespace)):
            # when a ModelDeployment of that name comes
            await played.create(model_deployment(namespace))

            async def told() -> bool:
                return "does not control" in condition(await played.status(), "Stalled")["message"]

            # then it says so and leaves the route alone
            await played.until("told", told)
        route = await played.route()
        assert route["spec"] == theirs["spec"]


def set_weights(weights: dict[str, int]) -> Callable[[Manifest], None]:
    def edit(route: Manifest) -> None:
        for backend in route["spec"]["rules"][-1]["backendRefs"]:
            backend["weight"] = weights[backend["name"]]

    return edit


def invalid_grace(manifest: Manifest) -> None:
    manifest["spec"]["server"] = {"terminationGracePeriod": "0s"}


async def try_edit(played: World, edit: Callable[[Manifest], None]) -> bool:
    try:
        await played.change(edit)
    except InvalidError:
        return False
    return True


@contextmanager
def crd_without_rules(control_plane: ControlPlane) -> Iterator[None]:
    """A CRD as of an operator that checked less."""
    name = "modeldeployments.modeldeployment.dev"
    path = (
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/server"
        "/properties/terminationGracePeriod/x-kubernetes-validations"
    )
    before = json.loads(control_plane.kubectl("get", "crd", name, "-o", "json"))
    rules: Any = before
    for part in path.strip("/").split("/"):
        rules = rules[int(part) if isinstance(rules, list) else part]
    patch = ("patch", "crd", name, "--type=json", "-p")
    control_plane.kubectl(*patch, json.dumps([{"op": "remove", "path": path}]))
    try:
        yield
    finally:
        control_plane.kubectl(*patch, json.dumps([{"op": "add", "path": path, "value": rules}]))
