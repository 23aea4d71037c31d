"""The operator itself, with the account that the chart gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.apiserver.control_plane import ControlPlane
from tests.chart.conftest import NAMESPACE, RELEASE, Render
from tests.unit.api.manifests import minimal

_START_S = 60.0
_POLL_S = 0.1
_ACCOUNT = f"{RELEASE}-model-operator"


class Operator:
    """The operator as a process."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "model_operator"],
                env={
                    **os.environ,
                    "KUBECONFIG": str(kubeconfig),
                    "MODEL_OPERATOR_SERVER_IMAGE": "localhost/model-server:dev",
                    "MODEL_OPERATOR_NAMESPACE": NAMESPACE,
                    "MODEL_OPERATOR_HEALTH_HOST": "127.0.0.1",
                    "MODEL_OPERATOR_HEALTH_PORT": "0",
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> int:
        """End it as Kubernetes does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_START_S)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def operator(
    control_plane: ControlPlane, render: Render, tmp_path: Path
) -> Iterator[tuple[Operator, ControlPlane]]:
    """An operator that has the rights of the chart and no other ones."""
    control_plane.kubectl("create", "namespace", NAMESPACE)
    rights = [each for each in render() if each["kind"] != "Deployment"]
    control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    token = control_plane.kubectl("create", "token", _ACCOUNT, "--namespace", NAMESPACE).strip()
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    running = Operator(kubeconfig, tmp_path / "operator.log")
    yield running, control_plane
    running.stop()


def test_the_charts_rights_are_enough_to_bring_up_a_model(
    operator: tuple[Operator, ControlPlane], namespace: str
) -> None:
    running, api = operator
    api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(minimal()))

    deadline = time.monotonic() + _START_S
    made: set[str] = set()
    expected = {"ModelRevision", "Deployment", "Service", "PodDisruptionBudget"}
    while not made >= expected and time.monotonic() < deadline:
        assert running.process.poll() is None, running.log.read_text()
        time.sleep(_POLL_S)
        answer = api.kubectl("get", "mrev,deploy,svc,pdb,httproute", "-n", namespace, "-o", "json")
        made = {each["kind"] for each in json.loads(answer)["items"]}

    log = running.log.read_text()
    assert made >= expected, log
    assert "orbidden" not in log
    status = api.request(
        "GET", f"/apis/modeldeployment.dev/v1alpha1/namespaces/{namespace}/modeldeployments/digits"
    )["status"]
    assert {each["type"] for each in status["conditions"]} >= {"Ready"}
    assert running.stop() == 0
