"""A Secret and a ConfigMap that pods use are rotated: nothing restarts by itself.

Pods know them as environment variables only: `spec.server` has no volumes. So whatever is rotated
needs a restart to be seen, which is asked for, and costs nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from hack.demo.cluster import kubectl
from tests.e2e.scene import NAME, Scene, failed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TOKEN = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}
SETTINGS = {"configMapRef": {"name": "settings"}}


def with_both(manifest: dict[str, Any]) -> None:
    used = {"env": [TOKEN], "envFrom": [SETTINGS]}
    manifest["spec"]["server"] = manifest["spec"].get("server", {}) | used


def rotate(s: Scene, value: str) -> None:
    """Have the Secret and the ConfigMap say something else."""
    secret = {"kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": value}}
    settings = {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"DAY": value}}
    path = s.folder / "rotated.yaml"
    path.write_text(yaml.safe_dump_all({"apiVersion": "v1", **each} for each in (secret, settings)))
    kubectl("-n", s.namespace, "apply", "-f", str(path))


def pods(s: Scene) -> dict[str, str]:
    """What both say, by name of the pods that serve."""
    selector = f"modeldeployment.dev/name={NAME}"
    listed = json.loads(kubectl("-n", s.namespace, "get", "pods", "-l", selector, "-o", "json"))
    names = [
        pod["metadata"]["name"]
        for pod in listed["items"]
        if "deletionTimestamp" not in pod["metadata"]
    ]
    script = "import os; print(os.environ['TOKEN'], os.environ['DAY'])"
    return {
        name: kubectl("-n", s.namespace, "exec", name, "--", "python3", "-c", script).strip()
        for name in names
    }


def test_s55_a_rotated_secret_restarts_nothing_until_a_restart_is_asked_for(
    stage: Callable[..., Scene],
) -> None:
    s = stage()
    rotate(s, "monday")
    digest = s.apply(1, change=with_both).digest
    s.wait(
        "ready",
        lambda h: h.status.stable is not None and h.status.stable.ready_replicas == 2,
        120,
    )
    s.recorder.start_load(50)
    before = pods(s)
    assert set(before.values()) == {"monday monday"}
    # what needs no restart has none: a pod reads it when it starts
    rotate(s, "tuesday")
    time.sleep(10)
    assert pods(s) == before
    # and what does is rolled within the floor, without a new revision
    began = time.time()
    restart = "modeldeployment.dev/restart=tuesday"
    kubectl("-n", s.namespace, "annotate", "modeldeployment", NAME, restart)
    kubectl(
        "-n", s.namespace, "rollout", "status", f"deployment/{s.history.revision_of(digest)}",
        "--timeout=120s",
    )  # fmt: skip
    after = pods(s)
    assert set(after.values()) == {"tuesday tuesday"}
    assert not set(after) & set(before)
    history = s.stop()
    stables = [seen.status.stable for seen in history.statuses if seen.at > began]
    assert min(stable.ready_replicas for stable in stables if stable is not None) >= 2
    assert failed(history) == 0
    assert len(history.revisions) >= 1
    assert {seen.name for seen in history.revisions} == {history.revision_of(digest)}
