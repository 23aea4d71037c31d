"""The operator's release on the real cluster: upgraded under way, removed, installed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
import yaml

from hack.demo import cluster
from hack.demo.cluster import CHART, OPERATOR, kubectl
from hack.demo.history import History
from tests.e2e.scene import NAME, READY_S, Scene, failed, weights_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Stage = Callable[..., Scene]

RESTING = "resting"
RATE = 50.0
WATCH_LAG_S = 0.5
ENFORCE = "pod-security.kubernetes.io/enforce"
CHILDREN = "deployments,services,poddisruptionbudgets,httproutes,modelrevisions"


@pytest.fixture
def restricted(operator: None) -> Iterator[None]:
    """The operator's namespace admits only pods that are restricted; the release is as it was."""
    del operator
    kubectl("label", "namespace", OPERATOR, f"{ENFORCE}=restricted", "--overwrite")
    yield
    install()
    kubectl("label", "namespace", OPERATOR, f"{ENFORCE}-")


def helm(*arguments: str) -> str:
    return cluster._run("helm", *arguments, "--namespace", OPERATOR)


def install(*values: str) -> None:
    chart = ("upgrade", "--install", OPERATOR, str(CHART), "--wait", "--timeout", "120s")
    # NB: without it an upgrade that is given no values takes those of the release before
    helm(*chart, "--reset-values", *(argument for value in values for argument in ("--set", value)))


def items(namespace: str, kinds: str, *selector: str) -> list[dict[str, Any]]:
    listed = json.loads(kubectl("-n", namespace, "get", kinds, *selector, "-o", "json"))
    found: list[dict[str, Any]] = listed["items"]
    return found


def restarts(s: Scene, name: str) -> dict[str, int]:
    """How often each pod of a model was restarted, by its uid."""
    pods = items(s.namespace, "pods", "-l", f"modeldeployment.dev/name={name}")
    return {
        pod["metadata"]["uid"]: sum(
            container["restartCount"] for container in pod["status"].get("containerStatuses", ())
        )
        for pod in pods
    }


def children(s: Scene, name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Uid and spec of a model's objects.

    Not the generation: a leader that comes after one whose lease was not given back, as when its
    rights were removed together with it, marks each object with an annotation.
    """
    found = items(s.namespace, CHILDREN, "-l", f"modeldeployment.dev/name={name}")
    return {
        f"{each['kind']} {each['metadata']['name']}": (each["metadata"]["uid"], each["spec"])
        for each in found
    }


def operators() -> set[str]:
    """Names of the operator's pods that run."""
    pods = items(OPERATOR, "pods", "-l", f"app.kubernetes.io/instance={OPERATOR}")
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def leader() -> str:
    return kubectl("-n", OPERATOR, "get", "lease", OPERATOR, "-o=jsonpath={.spec.holderIdentity}")


def upgrade(*values: str) -> int:
    """Upgrade the release; the fewest pods of the operator that were available meanwhile."""
    available = "jsonpath={.status.availableReplicas}"
    fewest = len(operators())
    with ThreadPoolExecutor() as pool:
        upgrading = pool.submit(install, *values)
        while not upgrading.done():
            counted = kubectl("-n", OPERATOR, "get", "deployment", OPERATOR, "-o", available)
            fewest = min(fewest, int(counted or 0))
            wait([upgrading], timeout=0.5)
        upgrading.result()
    return fewest


def rest(s: Scene) -> None:
    """Have a second model serve beside the scene's own, with nothing to be done about it."""
    manifest = s.manifest(1)
    manifest["metadata"]["name"] = RESTING
    manifest["spec"]["replicas"] = 1
    manifest["spec"]["route"]["hostnames"] = [f"{RESTING}.{s.place.hostname}"]
    path = s.folder / f"{RESTING}.yaml"
    path.write_text(yaml.safe_dump(manifest))
    kubectl("apply", "-f", str(path))
    ready = ("wait", f"mdep/{RESTING}", "--for=condition=Ready", f"--timeout={READY_S:g}s")
    kubectl("-n", s.namespace, *ready)


def bake_longer(manifest: dict[str, Any]) -> None:
    """Long enough to remove the operator in the middle of it."""
    manifest["spec"]["rollout"]["bake"]["duration"] = "15s"


def answered(history: History) -> int:
    return sum(cell.count for cell in history.cells() if cell.ok)


def test_s56_an_upgrade_and_a_removal_touch_neither_a_rollout_nor_a_model_at_rest(
    stage: Stage, restricted: None
) -> None:
    del restricted
    # given a model that is rolled out under load, and one at rest
    s = stage().serving(1, rate=RATE)
    rest(s)
    pods, objects = restarts(s, RESTING), children(s, RESTING)
    revision = s.wait_for_weight(s.apply(2, change=bake_longer).digest, 5)
    # when the release is upgraded, and during the bake removed and installed again
    with s.disturbance():
        upgrade_in_mid_canary(s, revision)
    s.wait_for_weight(s.model(2).digest, 100)
    with s.disturbance():
        remove_in_mid_bake(s)
        install()
    # then the new release ends the bake
    s.wait_for_promotion()
    history = s.stop()
    # and the rollout took each of its steps, none of them early
    assert weights_of(history, revision) == [5, 25, 50, 100]
    held = [span.seconds for span in history.spans(revision) if 0 < span.percent < 100]
    assert min(held) > s.step_s - WATCH_LAG_S
    # and nothing of the model at rest was written or restarted, and no request failed
    assert restarts(s, RESTING) == pods
    assert children(s, RESTING) == objects
    assert failed(history) == 0


def upgrade_in_mid_canary(s: Scene, revision: str) -> None:
    """Change the release's values and replace its pods, and nothing else."""
    pods, old = restarts(s, NAME), operators()
    fewest = upgrade("logLevel=debug", "server.image=registry.example/model-server:next")
    s.wait("the rollout goes on", lambda h: h.weights.get(revision, 0) > 5, 60)
    assert fewest >= 1
    assert not operators() & old
    assert leader() in operators()
    assert pods.items() <= restarts(s, NAME).items()


def remove_in_mid_bake(s: Scene) -> None:
    """Remove the release; what users have stays, and serves."""
    helm("uninstall", OPERATOR, "--wait", "--timeout", "60s")
    assert not operators()
    pods, objects = restarts(s, NAME), children(s, NAME)
    before = answered(s.history)
    s.wait("served without operator", lambda h: answered(h) > before + 5 * RATE, 30)
    assert restarts(s, NAME) == pods
    assert children(s, NAME) == objects
    assert s.history.status.former is not None, "it was removed in the middle of the bake"
