"""What the tests of releases that follow each other begin with, and what they look at."""

from __future__ import annotations

from typing import Any, Final

from model_operator.adapters.kube import DEPLOYMENT
from model_operator.core.revision import revision_name
from tests.apiserver.engine_world import World, digest, model_deployment

Manifest = dict[str, Any]
PAUSE: Final[Manifest] = {"pause": {}}
LONG: Final[Manifest] = {"duration": "60s"}
"""A bake that no test sees the end of."""


def to(percent: int, duration: str = "300ms") -> Manifest:
    """A step."""
    return {"setWeight": {"percent": percent, "duration": duration}}


def revision(seed: int) -> str:
    """The revision that a model gets."""
    return revision_name("digits", digest(seed), {})


ONE, TWO, THREE = (revision(seed) for seed in (1, 2, 3))


async def serve(played: World, *steps: Manifest, replicas: int = 2, **rollout: Any) -> None:
    """Given that the first revision serves.

    Args:
        played: Where.
        steps: Of every rollout; those of `model_deployment` without any.
        replicas: Of the ModelDeployment.
        rollout: Further fields of `spec.rollout`.
    """
    manifest = model_deployment(played.namespace, replicas=replicas)
    manifest["spec"]["rollout"] |= {"steps": list(steps), **rollout} if steps else rollout
    await played.create(manifest)
    assert await played.until_ready() == ONE


async def release(played: World, seed: int) -> None:
    """The spec names another model."""
    await played.change(lambda mdep: mdep["spec"]["model"].update(digest=digest(seed)))


async def until_deployed(played: World, *revisions: str) -> None:
    """Wait until exactly these have a Deployment."""

    async def deployed() -> bool:
        return set(await played.deployments()) == set(revisions)

    await played.until(f"deployed: {revisions}", deployed)


async def until_ready_pods(played: World, name: str, count: int) -> None:
    """Wait until so many pods of a revision are ready, in the Deployment's own status."""

    async def ready() -> bool:
        listed = await played.kube.list(DEPLOYMENT, namespace=played.namespace)
        found = {i["metadata"]["name"]: i.get("status", {}) for i in listed.items}
        return bool(found.get(name, {}).get("readyReplicas", 0) == count)

    await played.until(f"{count} ready pods of {name}", ready)


def intact(played: World, *revisions: str) -> None:
    """No pod of these was ever restarted or made anew, and no request was lost."""
    for name in revisions:
        started = {pod for pod, of in played.kubelet.started.items() if of == name}
        running = {pod.name for pod in played.pods.values() if pod.revision == name}
        assert started, f"no pod of {name} ever ran"
        assert running == started, name
    assert not played.lost
