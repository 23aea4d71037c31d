"""A release without nodes: its operator as a process, with the chart's environment and account."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tests.chart.audited import AuditedControlPlane, Call
from tests.chart.conftest import CHART, Helm

Manifest = dict[str, Any]

_END_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Account:
    """The operator's ServiceAccount.

    Attributes:
        namespace: Its namespace, which is the release's.
        token: What it shows the API server.
    """

    namespace: str
    name: str
    token: str

    @property
    def username(self) -> str:
        """Its name in the audit log."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


def account_of(api: AuditedControlPlane, deployment: Manifest) -> Account:
    """The account that the chart's Deployment runs with, with a fresh token."""
    namespace = deployment["metadata"]["namespace"]
    name = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    token = api.kubectl("create", "token", name, "--namespace", namespace).strip()
    return Account(namespace, name, token)


@dataclass(frozen=True, slots=True)
class Installation:
    """A release of the chart and its operator's account."""

    api: AuditedControlPlane
    release: str
    deployment: Manifest
    account: Account

    def calls(self) -> list[Call]:
        """What the operator asked of the API server so far."""
        return self.api.calls(self.account.username)


def install(
    api: AuditedControlPlane, helm: Helm, release: str, values: Manifest, folder: Path
) -> Installation:
    """Install the chart with quick settings."""
    file = folder / "values.json"
    quick = {"MODEL_OPERATOR_SETTLE_SECONDS": "0.4"}
    file.write_text(json.dumps({"crds": {"install": False}, "env": quick, **values}))
    where = ("--namespace", release, "--create-namespace", "--kubeconfig", str(api.kubeconfig))
    helm("install", release, str(CHART), *where, "--values", str(file))
    answer = api.kubectl("get", "deployments", "-n", release, "-o", "json")
    (deployment,) = json.loads(answer)["items"]
    return Installation(api, release, deployment, account_of(api, deployment))


class Operator:
    """Runs while its `with` block does; its end must be an orderly one."""

    def __init__(self, installed: Installation, folder: Path) -> None:
        """Prepare it.

        Args:
            installed: The release, whose environment and account it has.
            folder: Where its kubeconfig and its log are.
        """
        config = yaml.safe_load(installed.api.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": installed.account.token}
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(yaml.safe_dump(config))
        self._log = folder / "operator.log"
        self._environment = _environment(installed.deployment)

    def __enter__(self) -> Self:
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "model_operator"],
                env={
                    **os.environ,
                    **self._environment,
                    "KUBECONFIG": str(self._kubeconfig),
                    "MODEL_OPERATOR_HEALTH_HOST": "127.0.0.1",
                    "MODEL_OPERATOR_HEALTH_PORT": "0",
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(_END_S)
        finally:
            self.process.kill()
            self.process.wait()
        if kind is None:
            assert code == 0, self.log

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()


def _environment(deployment: Manifest) -> dict[str, str]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    own = {
        "metadata.name": "operator-0",
        "metadata.namespace": deployment["metadata"]["namespace"],
    }
    return {
        each["name"]: each["value"]
        if "value" in each
        else own[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }
