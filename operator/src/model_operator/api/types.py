"""The API `modeldeployment.dev/v1alpha1` as frozen types: the source of the CRDs' schemas.

Every field's description (with its unit and default) lands in the CRD. Defaults of fields inside
lists are applied when parsing and never by the schema: a defaulted list item makes GitOps agents
see a difference for ever.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
DECIMAL_PATTERN = r"^-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"


class Duration:
    """A span of time, written as Go and Kubernetes write it: ``90s``, ``1m30s``, ``250ms``.

    Attributes:
        text: As the user wrote it.
        seconds: The same in seconds.
    """

    __slots__ = ("seconds", "text")

    def __init__(self, text: str) -> None:
        if not re.match(DURATION_PATTERN, text):
            msg = f"{text!r} is not a duration; write a number with a unit, such as 30s or 1m30s"
            raise ValueError(msg)
        self.text = text
        self.seconds = sum(
            float(number) * _UNIT_S[unit]
            for number, unit in re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)

    def __repr__(self) -> str:
        return f"Duration({self.text!r})"


class Decimal:
    """A decimal number written as a string, because JSON numbers lose digits on their way.

    Attributes:
        text: As the user wrote it.
        value: The same as a float.
    """

    __slots__ = ("text", "value")

    def __init__(self, text: str) -> None:
        if not re.match(DECIMAL_PATTERN, text):
            msg = f"{text!r} is not a decimal number; write it as a string, such as '0.01'"
            raise ValueError(msg)
        self.text = text
        self.value = float(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decimal) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return f"Decimal({self.text!r})"


class Api(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every API type: immutable, camelCase on the wire."""


class Strict(Api, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what users write: a field that is not known is an error, never dropped."""


# ---------------------------------------------------------------------------------------- spec


class Model(Strict, frozen=True, kw_only=True):
    """An ONNX model: where it is and what exactly it is."""

    uri: Annotated[
        str,
        Meta(
            description="Where the model is: file://, pvc://CLAIM/PATH, http:// or https://. "
            "A moved model is no new revision; its digest decides.",
            min_length=1,
            max_length=2048,
        ),
    ]
    digest: Annotated[
        str,
        Meta(
            description="sha256:HEX of the file, or of a folder's sorted 'sha256 path' lines. "
            "It is verified before the model is loaded.",
            pattern=DIGEST_PATTERN,
        ),
    ]


class Owner(Strict, frozen=True, kw_only=True):
    """Who answers for the model."""

    team: Annotated[
        str, Meta(description="Team; a label of the operator's metrics.", max_length=63)
    ] = ""
    contact: Annotated[
        str, Meta(description="Where to reach the team; shown in events.", max_length=253)
    ] = ""


class Server(Strict, frozen=True, kw_only=True):
    """The inference server's pods. What is set here is part of the revision."""

    image: Annotated[
        str | None,
        Meta(
            description="Inference server image. Default: the operator's, at the time when the "
            "revision is made; pinned in the revision.",
            max_length=512,
        ),
    ] = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    resources: Annotated[
        dict[str, Any] | None,
        Meta(description="Resources of the server's container. Default: requests 100m, 256Mi."),
    ] = None
    execution_providers: Annotated[
        tuple[str, ...],
        Meta(
            description="ONNX Runtime execution providers, in order of preference. "
            "Default: CPUExecutionProvider.",
            min_length=1,
            max_length=8,
        ),
    ] = ("CPUExecutionProvider",)
    env: Annotated[
        tuple[dict[str, Any], ...],
        Meta(description="Environment variables, as in a pod's container.", max_length=64),
    ] = ()
    env_from: Annotated[
        tuple[dict[str, Any], ...],
        Meta(description="Sources of environment variables, as in a pod.", max_length=16),
    ] = ()
    node_selector: Annotated[dict[str, str], Meta(description="As in a pod.")] = {}
    tolerations: Annotated[
        tuple[dict[str, Any], ...], Meta(description="As in a pod.", max_length=32)
    ] = ()
    affinity: Annotated[dict[str, Any] | None, Meta(description="As in a pod.")] = None
    service_account_name: Annotated[
        str | None, Meta(description="Service account of the pods. Default: 'default'.")
    ] = None
    image_pull_secrets: Annotated[
        tuple[dict[str, str], ...], Meta(description="As in a pod.", max_length=8)
    ] = ()
    priority_class_name: Annotated[str | None, Meta(description="As in a pod.")] = None
    runtime_class_name: Annotated[str | None, Meta(description="As in a pod.")] = None
    termination_grace_period: Annotated[
        Duration | None,
        Meta(description="Time a pod has to finish accepted requests. Default: 60s."),
    ] = None


class ParentReference(Strict, frozen=True, kw_only=True):
    """Gateway API's ParentReference."""

    name: Annotated[str, Meta(description="Name of the Gateway.", min_length=1, max_length=253)]
    namespace: Annotated[
        str | None,
        Meta(description="Namespace of the Gateway. Default: this one.", max_length=63),
    ] = None
    group: Annotated[
        str | None,
        Meta(description="API group. Default: gateway.networking.k8s.io.", max_length=253),
    ] = None
    kind: Annotated[str | None, Meta(description="Kind. Default: Gateway.", max_length=63)] = None
    section_name: Annotated[
        str | None, Meta(description="Listener. Default: all.", max_length=253)
    ] = None
    port: Annotated[
        int | None, Meta(description="Port of the listener. Default: all.", ge=1, le=65535)
    ] = None


class Header(Strict, frozen=True, kw_only=True):
    """An HTTP header."""

    name: Annotated[
        str,
        Meta(
            description="Name of the header.",
            pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
            max_length=256,
        ),
    ]
    value: Annotated[str, Meta(description="Exact value.", min_length=1, max_length=4096)]


class Route(Strict, frozen=True, kw_only=True):
    """The HTTPRoute that the operator generates and owns."""

    parent_refs: Annotated[
        tuple[ParentReference, ...],
        Meta(description="Gateways that the route attaches to.", min_length=1, max_length=8),
    ]
    hostnames: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...],
        Meta(description="Host names of the route. Default: all of the listener.", max_length=16),
    ] = ()
    tester_header: Annotated[
        Header | None,
        Meta(
            description="Requests with this header reach the candidate at any weight, also at 0, "
            "as soon as it is ready. Default: none."
        ),
    ] = None


class SetWeight(Strict, frozen=True, kw_only=True):
    """A share of the traffic and how long it is held at least."""

    percent: Annotated[
        int, Meta(description="Share of the requests for the candidate, percent.", ge=1, le=100)
    ]
    duration: Annotated[
        Duration,
        Meta(description="Time at this weight; holds for missing evidence do not count."),
    ]


class Pause(Strict, frozen=True, kw_only=True):
    """A stop between weights."""

    duration: Annotated[
        Duration | None, Meta(description="How long. Default: until it is promoted by a request.")
    ] = None


class Step(Strict, frozen=True, kw_only=True):
    """Exactly one of its members."""

    set_weight: Annotated[SetWeight | None, Meta(description="Move traffic.")] = None
    pause: Annotated[Pause | None, Meta(description="Wait at the present weight.")] = None


class Bake(Strict, frozen=True, kw_only=True):
    """After promotion the former stable revision stays warm for a while."""

    duration: Annotated[Duration, Meta(description="How long. Default: 10m.")] = Duration("10m")
    replicas: Annotated[
        int | None,
        Meta(description="How many pods of it stay. Default: all.", ge=1, le=1000),
    ] = None


class Events(Strict, frozen=True, kw_only=True):
    """A share of bad events among all, tested on raw counters by a sequential test."""

    bad: Annotated[
        str,
        Meta(
            description="Query for the counters of bad events, at most one series for each pod.",
            min_length=1,
            max_length=4096,
        ),
    ]
    total: Annotated[
        str,
        Meta(
            description="Query for the counters of all events, at most one series for each pod.",
            min_length=1,
            max_length=4096,
        ),
    ]
    max_rate: Annotated[
        Decimal, Meta(description="Largest share of bad events that is healthy, 0 to 1.")
    ]
    min_events: Annotated[
        int,
        Meta(
            description="New events of the revision that a step needs to pass. Default: 50.",
            ge=1,
            le=1_000_000_000,
        ),
    ] = 50


class Value(Strict, frozen=True, kw_only=True):
    """A number against limits."""

    query: Annotated[
        str,
        Meta(description="Query with exactly one number for an answer.", max_length=4096),
    ]
    max: Annotated[Decimal | None, Meta(description="Fails above this. Default: no limit.")] = None
    min: Annotated[Decimal | None, Meta(description="Fails below this. Default: no limit.")] = None
    window: Annotated[
        Duration,
        Meta(description="What {{ window }} stands for in the query. Default: 1m."),
    ] = Duration("1m")


class Comparison(Strict, frozen=True, kw_only=True):
    """The candidate's number against stable's over the same window."""

    query: Annotated[
        str,
        Meta(
            description="Query with {{ revision }}; asked for the candidate and for stable.",
            max_length=4096,
        ),
    ]
    max_increase_percent: Annotated[
        int,
        Meta(description="Fails above stable's value by more than this, percent.", ge=0, le=10_000),
    ]
    window: Annotated[
        Duration,
        Meta(description="What {{ window }} stands for in the query. Default: 1m."),
    ] = Duration("1m")


class Metric(Strict, frozen=True, kw_only=True):
    """One health query: a union by type."""

    name: Annotated[
        str,
        Meta(
            description="Name, in events and status.",
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            max_length=63,
        ),
    ]
    type: Annotated[
        Literal["Events", "Value", "Comparison"], Meta(description="Which member is set.")
    ]
    metric_source: Annotated[
        str | None,
        Meta(
            description="MetricSource to ask, or 'pods': the operator scrapes the revision's pods. "
            "Default: the analysis's.",
            max_length=253,
        ),
    ] = None
    events: Annotated[Events | None, Meta(description="For type Events.")] = None
    value: Annotated[Value | None, Meta(description="For type Value.")] = None
    comparison: Annotated[Comparison | None, Meta(description="For type Comparison.")] = None


class OnInsufficient(Strict, frozen=True, kw_only=True):
    """What happens when samples are missing for too long (never when a source fails)."""

    hold: Annotated[Duration, Meta(description="How long to wait for samples. Default: 10m.")] = (
        Duration("10m")
    )
    then: Annotated[
        Literal["Rollback", "Keep"],
        Meta(description="Rollback, or Keep holding. Default: Rollback."),
    ] = "Rollback"


class Analysis(Strict, frozen=True, kw_only=True):
    """How the health of a revision is judged."""

    interval: Annotated[
        Duration, Meta(description="Time between two looks at a metric. Default: 5s.")
    ] = Duration("5s")
    confidence: Annotated[
        Decimal,
        Meta(
            description="1 minus the probability that a healthy rollout is rolled back by any of "
            "its sequential tests. Default: 0.99."
        ),
    ] = Decimal("0.99")
    metric_source: Annotated[
        str,
        Meta(
            description="MetricSource of metrics that name none. Default: 'pods', the operator "
            "scrapes the revision's pods.",
            max_length=253,
        ),
    ] = "pods"
    metrics: Annotated[
        tuple[Metric, ...],
        Meta(
            description="Health queries. Default: share of failed requests, latency against "
            "stable, restarts; from the pods themselves.",
            max_length=16,
        ),
    ] = ()
    on_insufficient: Annotated[OnInsufficient, Meta(description="When samples are missing.")] = (
        OnInsufficient()
    )


class Rollout(Strict, frozen=True, kw_only=True):
    """How a new revision may take over."""

    steps: Annotated[
        tuple[Step, ...],
        Meta(
            description="Weights and pauses, in order; after the last the candidate is promoted. "
            "Default: 5 %, 25 % and 50 % for 2m each.",
            max_length=32,
        ),
    ] = ()
    progress_deadline: Annotated[
        Duration,
        Meta(
            description="Longest time for a rollout to get from one step to the next beyond the "
            "step's own duration; holds and pauses do not count. Default: 30m."
        ),
    ] = Duration("30m")
    bake: Annotated[Bake, Meta(description="After promotion.")] = Bake()
    analysis: Annotated[Analysis, Meta(description="Health queries.")] = Analysis()


class ModelDeploymentSpec(Strict, frozen=True, kw_only=True):
    """What a user asks for."""

    model: Annotated[Model, Meta(description="The model to serve.")]
    owner: Annotated[Owner | None, Meta(description="Who answers for it.")] = None
    replicas: Annotated[
        int, Meta(description="Pods of the stable revision. Default: 2.", ge=0, le=1000)
    ] = 2
    server: Annotated[Server, Meta(description="The inference server's pods.")] = Server()
    route: Annotated[Route, Meta(description="How requests reach the model.")]
    suspend: Annotated[
        bool, Meta(description="Leave everything as it is until this is false. Default: false.")
    ] = False
    revision_history_limit: Annotated[
        int,
        Meta(description="Old ModelRevisions to keep as a record. Default: 10.", ge=0, le=100),
    ] = 10
    rollout: Annotated[Rollout, Meta(description="How a new version takes over.")] = Rollout()


# -------------------------------------------------------------------------------------- status


class Condition(Api, frozen=True, kw_only=True):
    """A condition as in the Kubernetes API conventions."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str


RolloutState = Literal["Idle", "Progressing", "Paused", "Held", "Baking", "RolledBack", "Failed"]


class RolloutStatus(Api, frozen=True, kw_only=True):
    """Where the rollout is, for people and printer columns."""

    state: RolloutState = "Idle"
    reason: str = ""
    message: str = ""
    since_time: Annotated[str | None, Meta(description="When this state began.")] = None


class StableStatus(Api, frozen=True, kw_only=True):
    """The revision that users are on."""

    revision: str
    digest: str = ""
    replicas: int = 0
    ready_replicas: int = 0


class CandidateStatus(Api, frozen=True, kw_only=True):
    """The revision that is being introduced."""

    revision: str
    digest: str = ""
    replicas: int = 0
    ready_replicas: int = 0
    step: Annotated[int, Meta(description="Index of the present step; -1 before the first.")] = -1
    percent: Annotated[int, Meta(description="Planned weight at this step, percent.")] = 0
    start_time: Annotated[str | None, Meta(description="When it became the candidate.")] = None
    step_start_time: Annotated[
        str | None, Meta(description="When the present step's weight was confirmed.")
    ] = None
    step_elapsed_seconds: Annotated[
        float,
        Meta(description="Time that counted for this step until stepClockTime, seconds."),
    ] = 0.0
    step_clock_time: Annotated[
        str | None, Meta(description="Since when the step's clock runs; none while it is stopped.")
    ] = None
    insufficient_since_time: Annotated[
        str | None, Meta(description="Since when samples are missing.")
    ] = None
    waiting_since_time: Annotated[
        str | None,
        Meta(description="Since when capacity or the route is awaited; the progress deadline's."),
    ] = None
    floor_replicas: Annotated[
        int, Meta(description="Pods of stable when the rollout began: none goes below it.")
    ] = 0
    pause_released: Annotated[bool, Meta(description="A request ended the present pause.")] = False
    next_action_time: Annotated[
        str | None, Meta(description="When the next step is due at the earliest.")
    ] = None


class FormerStatus(Api, frozen=True, kw_only=True):
    """The revision that was stable before, while it is kept warm or drained."""

    revision: str
    replicas: int = 0
    ready_replicas: int = 0
    rollout_start_time: Annotated[
        str | None, Meta(description="startTime of the rollout that took its place.")
    ] = None
    floor_replicas: Annotated[int, Meta(description="Pods it keeps until the bake's end.")] = 0
    bake_end_time: Annotated[str | None, Meta(description="When the bake ends.")] = None


class TrafficStatus(Api, frozen=True, kw_only=True):
    """One revision's share of the traffic."""

    revision: str
    desired_percent: int
    confirmed_percent: int | None = None


class RolledBackStatus(Api, frozen=True, kw_only=True):
    """A revision that is not tried again by itself."""

    revision: str
    reason: str
    message: str = ""
    time: str


class RequestStatus(Api, frozen=True, kw_only=True):
    """The last request of a person and what became of it."""

    id: str
    action: str
    revision: str = ""
    result: str = ""
    time: str


class ModelDeploymentStatus(Api, frozen=True, kw_only=True):
    """What the operator saw and decided."""

    observed_generation: int = 0
    replicas: int = 0
    selector: str = ""
    conditions: tuple[Condition, ...] = ()
    rollout: RolloutStatus = RolloutStatus()
    stable: StableStatus | None = None
    candidate: CandidateStatus | None = None
    former: FormerStatus | None = None
    traffic: tuple[TrafficStatus, ...] = ()
    rolled_back: tuple[RolledBackStatus, ...] = ()
    last_request: RequestStatus | None = None


# -------------------------------------------------------------------------------- ModelRevision


class ModelRevisionSpec(Api, frozen=True, kw_only=True):
    """What can serve, for ever: immutable."""

    model: Model
    owner: Owner | None = None
    hash: str
    template: Annotated[
        dict[str, Any],
        Meta(description="The pod template as it was rendered, with the image pinned."),
    ]


class Tensor(Api, frozen=True, kw_only=True):
    """A tensor of a model's signature."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Signature(Api, frozen=True, kw_only=True):
    """Inputs and outputs of the model; -1 is a dimension of any size."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Evidence(Api, frozen=True, kw_only=True):
    """One metric's verdict at one time, as the decision saw it."""

    metric: str
    verdict: Literal["pass", "fail", "insufficient", "error"]
    step: int
    percent: int
    time: str
    value: str | None = None
    threshold: str | None = None
    samples: int = 0
    message: str = ""


class Preflight(Api, frozen=True, kw_only=True):
    """What was found before the first request."""

    passed: bool
    reason: str = ""
    message: str = ""
    time: str


class ModelRevisionStatus(Api, frozen=True, kw_only=True):
    """The record of a revision."""

    signature: Signature | None = None
    preflight: Preflight | None = None
    evidence: tuple[Evidence, ...] = ()
    tests: Annotated[
        dict[str, Any],
        Meta(description="State of the running tests, so that a restart loses little."),
    ] = {}
    verdict: str = ""
    promoted_time: str | None = None
    rolled_back_time: str | None = None
    rolled_back_reason: str | None = None


# --------------------------------------------------------------------------------- MetricSource


class SecretKeyRef(Strict, frozen=True, kw_only=True):
    """A key of a Secret in the operator's namespace."""

    name: Annotated[str, Meta(description="Name of the Secret.", min_length=1, max_length=253)]
    key: Annotated[str, Meta(description="Key in it.", min_length=1, max_length=253)]


class Tls(Strict, frozen=True, kw_only=True):
    """TLS towards the source."""

    ca_secret: Annotated[
        SecretKeyRef | None, Meta(description="CA bundle, PEM. Default: the system's.")
    ] = None
    server_name: Annotated[
        str | None, Meta(description="Name to verify. Default: the host of the URL.")
    ] = None


class Prometheus(Strict, frozen=True, kw_only=True):
    """A Prometheus-compatible HTTP API."""

    url: Annotated[
        str,
        Meta(
            description="Base URL, such as http://prometheus.monitoring.svc:9090.",
            pattern=r"^https?://[^\s]+$",
            max_length=2048,
        ),
    ]
    scrape_interval: Annotated[
        Duration,
        Meta(description="How often it scrapes; a sample older than two is none. Default: 15s."),
    ] = Duration("15s")
    timeout: Annotated[Duration, Meta(description="Longest time for one query. Default: 5s.")] = (
        Duration("5s")
    )
    bearer_token: Annotated[
        SecretKeyRef | None, Meta(description="Bearer token. Default: none.")
    ] = None
    tls: Annotated[Tls | None, Meta(description="TLS. Default: the system's CAs.")] = None


class MetricSourceSpec(Strict, frozen=True, kw_only=True):
    """A source of metrics; owned by administrators."""

    prometheus: Annotated[Prometheus, Meta(description="The Prometheus to ask.")]
    namespaces: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=63)], ...],
        Meta(description="Namespaces that may use it. Default: all.", max_length=256),
    ] = ()
