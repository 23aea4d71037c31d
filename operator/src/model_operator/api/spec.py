"""`ModelDeployment.spec`: what a user asks for.

Defaults are applied when parsing, not by the schema: inside lists they make GitOps agents see a
difference for ever, and outside they would freeze today's default into every stored object. The
one exception is `replicas`, which autoscalers read through /scale.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field

from model_operator.api.base import (
    ATOMIC,
    POSITIVE,
    SET,
    Duration,
    Label,
    Name,
    Strict,
    kubernetes_type,
    map_by,
    matching,
    require_match,
    require_positive,
)
from model_operator.api.golden import GoldenRequest, require_golden_fits
from model_operator.api.rollout import Rollout

URI_PATTERN: Final = r"^(https?://[^/\s]+/|pvc://[^/\s]+/|file:///)\S+$"
_URI_MESSAGE = "must be https://HOST/PATH, http://HOST/PATH, pvc://CLAIM/PATH or file:///PATH"
DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
_DIGEST_MESSAGE = (
    "must be sha256: and 64 lower-case hex digits; `model-server digest PATH` prints it"
)
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
HOSTNAME_PATTERN: Final = rf"^(\*\.)?{_DNS_LABEL}(\.{_DNS_LABEL})*$"
_HEADER_NAME_PATTERN = r"^[A-Za-z0-9!#$%&*+\-.^_|~]+$"
DEFAULT_REPLICAS: Final = 2


class Model(Strict, frozen=True, kw_only=True):
    """An ONNX model: where it is and what exactly it is."""

    uri: Annotated[
        str,
        Meta(
            description="Where the model is: https://HOST/PATH, http://HOST/PATH, pvc://CLAIM/PATH "
            "or file:///PATH in the server's image. A moved model is no new revision: the digest "
            "decides.",
            max_length=2048,
            extra_json_schema=matching(URI_PATTERN, _URI_MESSAGE),
        ),
    ]
    digest: Annotated[
        str,
        Meta(
            description="sha256:HEX of the file, or of a folder's sorted 'sha256 path' lines; "
            "`model-server digest PATH` prints it. Verified before the model is loaded.",
            max_length=71,
            extra_json_schema=matching(DIGEST_PATTERN, _DIGEST_MESSAGE),
        ),
    ]

    def __post_init__(self) -> None:
        """Check both formats."""
        require_match(".uri", self.uri, URI_PATTERN, _URI_MESSAGE)
        require_match(".digest", self.digest, DIGEST_PATTERN, _DIGEST_MESSAGE)


class Owner(Strict, frozen=True, kw_only=True):
    """Who answers for the model."""

    team: Annotated[
        str,
        Meta(
            description="Team; a label of the operator's metrics. Default: empty.",
            max_length=63,
        ),
    ] = ""
    contact: Annotated[
        str,
        Meta(
            description="Where to reach the team; shown in status and events, never a label of "
            "metrics. Default: empty.",
            max_length=253,
        ),
    ] = ""


class Server(Strict, frozen=True, kw_only=True):
    """The inference server's pods. What is set here is part of the revision."""

    image: Annotated[
        Annotated[str, Meta(min_length=1, max_length=512)] | None,
        Meta(
            description="Image of the inference server. Default: the operator's default at the "
            "time when the revision is made; it is pinned in the revision.",
        ),
    ] = None
    image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"] | None,
        Meta(description="As in a pod's container. Default: IfNotPresent."),
    ] = None
    resources: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Resources of the server's container, as in a pod. Its threads follow the "
            "CPU limit. Default: requests of 100m CPU and 256Mi memory.",
            extra=kubernetes_type("V1ResourceRequirements"),
        ),
    ] = None
    execution_providers: Annotated[
        tuple[Label, ...],
        Meta(
            description="ONNX Runtime execution providers, in order of preference. "
            "Default: CPUExecutionProvider.",
            min_length=1,
            max_length=8,
            extra_json_schema=ATOMIC,
        ),
    ] = ("CPUExecutionProvider",)
    env: Annotated[
        tuple[dict[str, Any], ...],
        Meta(
            description="Environment variables, as in a pod's container. Default: none.",
            max_length=64,
            extra_json_schema=map_by("name"),
            extra=kubernetes_type("V1EnvVar"),
        ),
    ] = ()
    env_from: Annotated[
        tuple[dict[str, Any], ...],
        Meta(
            description="Sources of environment variables, as in a pod's container. Default: none.",
            max_length=16,
            extra_json_schema=ATOMIC,
            extra=kubernetes_type("V1EnvFromSource"),
        ),
    ] = ()
    node_selector: Annotated[
        dict[str, Annotated[str, Meta(max_length=63)]],
        Meta(description="Labels of the nodes to run on. Default: any node.", max_length=32),
    ] = field(default_factory=dict)
    tolerations: Annotated[
        tuple[dict[str, Any], ...],
        Meta(
            description="Taints of nodes to tolerate, as in a pod. Default: none.",
            max_length=32,
            extra_json_schema=ATOMIC,
            extra=kubernetes_type("V1Toleration"),
        ),
    ] = ()
    affinity: Annotated[
        dict[str, Any] | None,
        Meta(
            description="As in a pod. Default: none; pods spread over nodes and zones anyway.",
            extra=kubernetes_type("V1Affinity"),
        ),
    ] = None
    service_account_name: Annotated[
        Name | None,
        Meta(
            description="Service account of the pods. Default: 'default'.",
        ),
    ] = None
    image_pull_secrets: Annotated[
        tuple[dict[str, str], ...],
        Meta(
            description="Secrets for pulling the image, as in a pod. Default: none.",
            max_length=8,
            extra_json_schema=map_by("name"),
            extra=kubernetes_type("V1LocalObjectReference"),
        ),
    ] = ()
    priority_class_name: Annotated[
        Name | None,
        Meta(
            description="Priority class of the pods. Default: the cluster's.",
        ),
    ] = None
    runtime_class_name: Annotated[
        Name | None,
        Meta(
            description="Runtime class of the pods. Default: the node's runtime.",
        ),
    ] = None
    termination_grace_period: Annotated[
        Duration | None,
        POSITIVE,
        Meta(description="Time a pod has to finish accepted requests. Default: 60s."),
    ] = None
    golden_requests: Annotated[
        tuple[GoldenRequest, ...],
        Meta(
            description="Requests whose answers are known: each pod must answer them rightly "
            "before it is ready, and a wrong answer ends the rollout. 64 KiB together at most. "
            "Default: none.",
            max_length=8,
            extra_json_schema=map_by("name"),
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Check the duration and the golden requests."""
        require_positive(".terminationGracePeriod", self.termination_grace_period)
        require_golden_fits(".goldenRequests", self.golden_requests)


class ParentReference(Strict, frozen=True, kw_only=True):
    """Gateway API's ParentReference."""

    name: Annotated[str, Meta(description="Name of the Gateway.", min_length=1, max_length=253)]
    namespace: Annotated[
        Label | None,
        Meta(
            description="Namespace of the Gateway. Default: the ModelDeployment's.",
        ),
    ] = None
    group: Annotated[
        Annotated[str, Meta(max_length=253)] | None,
        Meta(description="API group. Default: gateway.networking.k8s.io."),
    ] = None
    kind: Annotated[Label | None, Meta(description="Kind. Default: Gateway.")] = None
    section_name: Annotated[
        Name | None,
        Meta(description="Name of the listener. Default: all."),
    ] = None
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description="Port of the listener. Default: all."),
    ] = None


class Header(Strict, frozen=True, kw_only=True):
    """An HTTP header."""

    name: Annotated[
        str,
        Meta(
            description="Name of the header; upper and lower case are the same.",
            pattern=_HEADER_NAME_PATTERN,
            max_length=256,
        ),
    ]
    value: Annotated[str, Meta(description="Its exact value.", min_length=1, max_length=4096)]


class Route(Strict, frozen=True, kw_only=True):
    """The HTTPRoute that the operator generates and owns."""

    parent_refs: Annotated[
        tuple[ParentReference, ...],
        Meta(
            description="Gateways that the route attaches to.",
            min_length=1,
            max_length=8,
            extra_json_schema=ATOMIC,
        ),
    ]
    hostnames: Annotated[
        tuple[Annotated[str, Meta(pattern=HOSTNAME_PATTERN, max_length=253)], ...],
        Meta(
            description="Host names of the route; '*.' may begin one. Default: all of the "
            "listener.",
            max_length=16,
            extra_json_schema=SET,
        ),
    ] = ()
    tester_header: Annotated[
        Header | None,
        Meta(
            description="Requests with this header reach the candidate at any weight, also at 0, "
            "as soon as it is ready. Default: none."
        ),
    ] = None


class ModelDeploymentSpec(Strict, frozen=True, kw_only=True):
    """What a user asks for."""

    model: Annotated[Model, Meta(description="The model to serve.")]
    owner: Annotated[
        Owner | None, Meta(description="Who answers for the model. Default: nobody is named.")
    ] = None
    replicas: Annotated[
        int,
        Meta(
            description="Pods of the stable revision; a candidate has as many as its weight needs. "
            "Default: 2.",
            ge=0,
            le=1000,
            # NB: /scale answers 0 for a field that is not there, and an autoscaler leaves an
            # object with 0 alone: this one default has to be in the schema.
            extra_json_schema={"default": DEFAULT_REPLICAS},
        ),
    ] = DEFAULT_REPLICAS
    server: Annotated[
        Server,
        Meta(
            description="The inference server's pods. What is set here is part of the revision. "
            "Default: {}."
        ),
    ] = Server()
    route: Annotated[Route, Meta(description="How requests reach the model.")]
    suspend: Annotated[
        bool,
        Meta(description="Leave pods and weights as they are until this is false. Default: false."),
    ] = False
    revision_history_limit: Annotated[
        int,
        Meta(
            description="Number of old ModelRevisions to keep as a record. Default: 10.",
            ge=0,
            le=100,
        ),
    ] = 10
    rollout: Annotated[
        Rollout,
        Meta(description="How a new revision takes over. Default: three steps, in 6 minutes."),
    ] = Rollout()
