"""The cluster as the demo knows it: KUBECONFIG, kubectl to apply, and the API server to look."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config

from hack.demo.cache import cache_dir
from hack.demo.loadgen.answers import Window

OPERATOR = "model-operator"
"""Name of the operator's chart, its release, its namespace and its Deployment."""

CHART = Path(__file__).parents[2] / "charts" / OPERATOR
REQUEST_TIMEOUT_S = 10
LAST_ANSWERS_S = 60
"""More than a request may take that was sent when the load was stopped."""
BAD_REQUEST = 400


new_client: Callable[..., client.ApiClient] = config.new_client_from_config
"""The client of KUBECONFIG; the library's function has no types."""


class ClusterError(Exception):
    """The cluster is not as the demo needs it; the message says what to do."""


def connect() -> client.ApiClient:
    """A client for the cluster of KUBECONFIG.

    Raises:
        ClusterError: There is none, or it does not answer.
    """
    try:
        # Named, since the library reads the variable only once, when it is imported.
        api = new_client(config_file=os.environ.get("KUBECONFIG"))
        client.VersionApi(api).get_code(_request_timeout=REQUEST_TIMEOUT_S)
    except Exception as error:
        # The client raises its own, urllib3's and yaml's errors here.
        raise ClusterError(
            f"no cluster answers at KUBECONFIG={os.environ.get('KUBECONFIG', '~/.kube/config')} "
            f"({error}): start one with `make cluster-up`"
        ) from error
    return api


def kubectl(*arguments: str) -> str:
    """Runs kubectl; its standard output.

    Raises:
        ClusterError: There is no kubectl, or it failed; with its words.
    """
    return _run("kubectl", *arguments)


def install_operator(*, disable_rollback: bool = False) -> None:
    """Installs the operator's chart, or upgrades it, and waits until it runs.

    Args:
        disable_rollback: Sets the test switch that keeps the operator from rolling back.

    Raises:
        ClusterError: There is no helm, or the operator did not start.
    """
    _run(
        "helm", "upgrade", "--install", OPERATOR, str(CHART),
        "--namespace", OPERATOR, "--create-namespace",
        "--set", f"testing.disableRollback={str(disable_rollback).lower()}",
        "--wait", "--timeout", "120s",
    )  # fmt: skip
    # The image's tag stays the same when it is built anew, so helm sees nothing to change.
    kubectl("-n", OPERATOR, "rollout", "restart", f"deployment/{OPERATOR}")
    kubectl("-n", OPERATOR, "rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")


def environment() -> dict[str, str]:
    """What a shell needs to reach the cluster as the demo does."""
    found = {"KUBECONFIG": os.environ.get("KUBECONFIG", "~/.kube/config")}
    if shutil.which("kubectl") is None:
        found["PATH"] = f"{_tools()}:$PATH"
    return found


def _tools() -> Path:
    return Path(os.environ.get("MODEL_OPERATOR_TOOLS") or cache_dir() / "bin")


def _run(name: str, *arguments: str) -> str:
    tools = _tools()
    # The project's own tools fit the cluster's version; those of the machine may be old.
    program = shutil.which(name, path=tools) or shutil.which(name)
    if program is None:
        raise ClusterError(f"{name} is neither in {tools} nor on the PATH: run `make tools`")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{name} {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class LoadGenerator:
    """The load generator in the cluster, reached through the API server's service proxy.

    Attributes:
        api: Client of the API server.
        namespace: Where the Service `name` is.
        name: The Service.
        port: Its port.
    """

    api: client.ApiClient
    namespace: str
    name: str = "loadgen"
    port: int = 8080

    def start(self, rate: float) -> None:
        """Starts `rate` requests per second."""
        self._call("POST", "start", body={"rate": rate})

    def stop(self) -> None:
        """Stops and waits for the answers that are still out."""
        self._call("POST", "stop", timeout_s=LAST_ANSWERS_S)

    def windows(self, since: int) -> list[Window]:
        """The closed windows from number `since` on.

        Raises:
            ClusterError: Some of them are lost: it was restarted, or nobody read them for an hour.
        """
        stats = self._call("GET", "stats", query={"since": since})
        if stats["first"] > since or stats["next"] < since:
            raise ClusterError(
                f"the load generator lost answers: it has windows {stats['first']} to "
                f"{stats['next']}, wanted was {since}"
            )
        return [Window.from_json(window) for window in stats["windows"]]

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> dict[str, Any]:
        response: Any = self.api.call_api(
            *self.api.param_serialize(
                method=method,
                resource_path=(
                    f"/api/v1/namespaces/{self.namespace}/services/"
                    f"http:{self.name}:{self.port}/proxy/{path}"
                ),
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            ),
            _request_timeout=timeout_s,
        )
        text: bytes = response.read()
        if response.status >= BAD_REQUEST:
            raise client.ApiException(status=response.status, reason=text.decode(errors="replace"))
        value: dict[str, Any] = json.loads(text)
        return value
