"""What the cluster has beside Kubernetes itself: Gateway API with a gateway, and Prometheus."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster.gotools import module_source
from hack.cluster.layout import SOURCES
from hack.cluster.nodeimage import prometheus_image, traefik_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.cluster.process import Runner

MANIFESTS = SOURCES / "manifests"

# Fixed, because kind has to publish them when the cluster is made.
GATEWAY_NODE_PORT = 30080
PROMETHEUS_NODE_PORT = 30090

_READY_S = 120
_ROLLOUTS = (
    ("kube-system", "deployment/coredns"),
    ("gateway", "deployment/traefik"),
    ("monitoring", "deployment/prometheus"),
)


def render(manifest: str, values: Mapping[str, str]) -> str:
    """Fill in a manifest's ``${NAME}`` places; any other ``$`` stays, as in Prometheus' ``$1``.

    Raises:
        KeyError: the manifest has a place that there is no value for.
    """
    return re.sub(r"\$\{([A-Z_]+)\}", lambda place: values[place[1]], manifest)


def manifests() -> str:
    """Return the manifests of the gateway and of Prometheus, ready to apply."""
    prometheus = (MANIFESTS / "prometheus.yaml").read_text()
    values = {
        "TRAEFIK_IMAGE": traefik_image(),
        "PROMETHEUS_IMAGE": prometheus_image(),
        "GATEWAY_NODE_PORT": str(GATEWAY_NODE_PORT),
        "PROMETHEUS_NODE_PORT": str(PROMETHEUS_NODE_PORT),
        # Prometheus reads its file once: a changed one has to bring a new pod.
        "CONFIG_HASH": hashlib.sha256(prometheus.encode()).hexdigest()[:10],
    }
    gateway = (MANIFESTS / "gateway.yaml").read_text()
    return f"{render(gateway, values)}---\n{render(prometheus, values)}"


def apply_all(kubectl: Path, run: Runner) -> None:
    """Install the parts, or bring them up to date. Does not wait for them."""
    # Traefik implements the version that its own module requires.
    crds = module_source("traefik", "sigs.k8s.io/gateway-api", run) / "config" / "crd" / "standard"
    apply = (kubectl, "apply", "--server-side", "--force-conflicts", "-f")
    run.run(*apply, crds, timeout_s=60)
    run.run(
        *(kubectl, "wait", "--for=condition=Established", "--timeout=30s", "-f", crds), timeout_s=60
    )
    run.run(*apply, "-", stdin=manifests().encode(), timeout_s=60)


def wait_ready(kubectl: Path, run: Runner) -> None:
    """Wait until nodes, DNS, gateway and Prometheus are ready.

    Raises:
        ClusterError: one was not in time.
    """
    timeout = f"--timeout={_READY_S}s"
    run.run(kubectl, "wait", "node", "--all", "--for=condition=Ready", timeout)
    for namespace, workload in _ROLLOUTS:
        run.run(kubectl, "-n", namespace, "rollout", "status", workload, timeout)
    run.run(
        *(kubectl, "-n", "gateway", "wait", "gateway/main", "--for=condition=Programmed", timeout)
    )
