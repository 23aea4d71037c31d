"""The pod template of a revision, rendered once and kept in its ModelRevision.

A newer operator re-applies the recorded template unchanged, so whatever is changed here reaches
new revisions only.
"""

from __future__ import annotations

from typing import Any

from model_operator.api.golden import golden_argument
from model_operator.api.labels import child_labels
from model_operator.api.types import Model, Server

Manifest = dict[str, Any]

CONTAINER = "model-server"
HTTP_PORT = 8080
METRICS_PORT = 9090

_PVC_SCHEME = "pvc://"
_MOUNT = "/mnt/models"
_DEFAULT_GRACE_S = 60.0
_ROUTERS_NOTICE_S = 5.0
_EXIT_RESERVE_S = 5.0
_STARTUP_PERIOD_S = 2
_STARTUP_DEADLINE_S = 1200
_RUN_AS = 65532
_LOST_NODE_S = 30


def render_pod_template(
    name: str, revision: str, model: Model, server: Server, default_image: str
) -> Manifest:
    """Render the pods of a revision.

    Args:
        name: The ModelDeployment's name, which is also the model's name in the protocol.
        revision: The revision's name.
        model: Where the model is and what it is.
        server: What the user set.
        default_image: The image that is pinned when the user set none.
    """
    claim, uri = _locate(model.uri)
    labels = child_labels(name, revision)
    grace_s = _grace_s(server)
    return {
        "metadata": {"labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": round(grace_s),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _RUN_AS,
                "runAsGroup": _RUN_AS,
                "fsGroup": _RUN_AS,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [_over_nodes(labels)],
            "containers": [
                {
                    "name": CONTAINER,
                    "image": server.image or default_image,
                    "args": [
                        "serve",
                        f"--model={uri}",
                        f"--digest={model.digest}",
                        f"--name={name}",
                        f"--revision={revision}",
                        f"--http-port={HTTP_PORT}",
                        f"--metrics-port={METRICS_PORT}",
                        f"--execution-providers={','.join(server.execution_providers)}",
                        *_drain_args(grace_s),
                        *_golden_args(server),
                    ],
                    **_container_fields(server),
                    **_probes(name),
                    "volumeMounts": _mounts(claim),
                }
            ],
            "volumes": _volumes(claim),
            **_pod_fields(server, labels),
        },
    }


def _locate(uri: str) -> tuple[str | None, str]:
    """Claim to mount, if any, and the URI as the server in the pod sees it."""
    if not uri.startswith(_PVC_SCHEME):
        return None, uri
    claim, _, path = uri.removeprefix(_PVC_SCHEME).partition("/")
    return claim, f"file://{_MOUNT}/{path}"


def _grace_s(server: Server) -> float:
    grace = server.termination_grace_period
    return grace.seconds if grace else _DEFAULT_GRACE_S


def _container_fields(server: Server) -> Manifest:
    environment = {"env": list(server.env), "envFrom": list(server.env_from)}
    return {
        "imagePullPolicy": server.image_pull_policy or "IfNotPresent",
        **{key: value for key, value in environment.items() if value},
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": server.resources or {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }


def _drain_args(grace_s: float) -> list[str]:
    # NB: there is no preStop hook, see ADR 0012: waiting twice would use up the grace period
    delay_s = min(_ROUTERS_NOTICE_S, grace_s / 3)
    drain_s = max(1.0, grace_s - delay_s - min(_EXIT_RESERVE_S, grace_s / 3))
    return [f"--drain-delay={delay_s:g}s", f"--drain-timeout={drain_s:g}s"]


def _golden_args(server: Server) -> list[str]:
    # only where there are some: a template that is the same as ever restarts nothing
    requests = server.golden_requests
    return [f"--golden={golden_argument(requests)}"] if requests else []


def _probes(name: str) -> Manifest:
    # startup is generous, since a large model may load for minutes and a definite failure ends
    # the process by itself; readiness is quick, since it takes a broken pod off the traffic
    ready = {"path": f"/v2/models/{name}/ready", "port": "http"}
    return {
        "startupProbe": {
            "httpGet": ready,
            "periodSeconds": _STARTUP_PERIOD_S,
            "timeoutSeconds": 2,
            "failureThreshold": _STARTUP_DEADLINE_S // _STARTUP_PERIOD_S,
        },
        "readinessProbe": {
            "httpGet": ready,
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 6,
        },
    }


def _volumes(claim: str | None) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "models", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if claim is not None:
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": "source", "persistentVolumeClaim": source})
    return volumes


def _mounts(claim: str | None) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "models", "mountPath": "/models"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own, in memory of nobody else
    ]
    if claim is not None:
        mounts.append({"name": "source", "mountPath": _MOUNT, "readOnly": True})
    return mounts


def _over_nodes(labels: dict[str, str]) -> Manifest:
    # NB: no second constraint for zones. The scheduler leaves nodes out of account that lack the
    # label of any of them, so that on a cluster without zones nothing would be spread at all.
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }


def _affinity(server: Server, labels: dict[str, str]) -> Manifest:
    """The user's affinity; unless that says where other pods keep it from, away from full zones."""
    term = {
        "topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": {"matchLabels": labels},
    }
    over_zones = {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term}
        ]
    }
    return {"podAntiAffinity": over_zones, **(server.affinity or {})}


def _lost_node_tolerations(server: Server) -> list[Manifest]:
    """How soon pods are made elsewhere when their node is lost; Kubernetes waits five minutes."""
    named = {toleration.get("key") for toleration in server.tolerations}
    if None in named:  # the user tolerates everything
        return []
    return [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _LOST_NODE_S,
        }
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if key not in named
    ]


def _pod_fields(server: Server, labels: dict[str, str]) -> Manifest:
    fields: Manifest = {
        "nodeSelector": server.node_selector,
        "tolerations": [*server.tolerations, *_lost_node_tolerations(server)],
        "affinity": _affinity(server, labels),
        "serviceAccountName": server.service_account_name,
        "imagePullSecrets": list(server.image_pull_secrets),
        "priorityClassName": server.priority_class_name,
        "runtimeClassName": server.runtime_class_name,
    }
    return {key: value for key, value in fields.items() if value}
