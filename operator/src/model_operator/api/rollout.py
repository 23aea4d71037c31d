"""`ModelDeployment.spec.rollout`: how a new revision takes over, and how its health is judged."""

from itertools import pairwise
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from model_operator.api.base import (
    ATOMIC,
    POSITIVE,
    Decimal,
    Duration,
    FieldError,
    Rule,
    Strict,
    map_by,
    require_positive,
)
from model_operator.api.preflight import PreflightPolicy

PODS_SOURCE: Final = "pods"
"""The metrics source that is always there: the operator scrapes the revision's pods itself."""

_SourceName = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class SetWeight(Strict, frozen=True, kw_only=True):
    """A share of the traffic and how long it is held at least."""

    percent: Annotated[
        int, Meta(description="Share of the requests for the candidate, percent.", ge=1, le=100)
    ]
    duration: Annotated[
        Duration,
        POSITIVE,
        Meta(description="Time at this weight, such as 5m; time without evidence does not count."),
    ]

    def __post_init__(self) -> None:
        """Check the duration."""
        require_positive(".duration", self.duration)


class Pause(Strict, frozen=True, kw_only=True):
    """A stop between weights."""

    duration: Annotated[
        Duration | None,
        POSITIVE,
        Meta(description="How long, such as 1h. Default: until someone promotes the candidate."),
    ] = None

    def __post_init__(self) -> None:
        """Check the duration."""
        require_positive(".duration", self.duration)


class Step(Strict, frozen=True, kw_only=True):
    """Exactly one of its members."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.setWeight) != has(self.pause)",
            "a step has exactly one of setWeight and pause; make two steps of it",
        ),
    )

    set_weight: Annotated[
        SetWeight | None, Meta(description="Give the candidate this weight and hold it.")
    ] = None
    pause: Annotated[Pause | None, Meta(description="Wait at the present weight.")] = None

    def __post_init__(self) -> None:
        """Check the union."""
        if (self.set_weight is None) == (self.pause is None):
            raise FieldError("a step has exactly one of setWeight and pause; make two steps of it")


class Bake(Strict, frozen=True, kw_only=True):
    """After promotion the former stable revision stays warm for a while."""

    duration: Annotated[
        Duration, Meta(description="How long; 0s for not at all. Default: 10m.")
    ] = Duration("10m")
    replicas: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="How many of its pods stay. Default: all."),
    ] = None


class Events(Strict, frozen=True, kw_only=True):
    """A share of bad events among all, judged on raw counters by a sequential test."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "double(self.maxRate) >= 0.0 && double(self.maxRate) < 1.0",
            "maxRate is a share: at least 0 and below 1, such as '0.01' for 1 %",
        ),
    )

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
        Decimal,
        Meta(description="Largest share of bad events that is healthy, from 0 to below 1."),
    ]
    min_events: Annotated[
        int,
        Meta(
            description="New events of the revision that a step needs to pass. Default: 50.",
            ge=1,
            le=1_000_000_000,
        ),
    ] = 50

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.max_rate.value < 1:
            raise FieldError("must be at least 0 and below 1, such as '0.01' for 1 %", ".maxRate")


class Value(Strict, frozen=True, kw_only=True):
    """A number against limits."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.max) || has(self.min)", "a Value metric needs max, min or both"),
        Rule(
            "!has(self.max) || !has(self.min) || double(self.min) <= double(self.max)",
            "min is above max: no value could pass",
        ),
    )

    query: Annotated[
        str,
        Meta(
            description="Query with exactly one number for an answer.",
            min_length=1,
            max_length=4096,
        ),
    ]
    max: Annotated[Decimal | None, Meta(description="Fails above this. Default: no limit.")] = None
    min: Annotated[Decimal | None, Meta(description="Fails below this. Default: no limit.")] = None
    window: Annotated[
        Duration,
        POSITIVE,
        Meta(description="What {{ window }} stands for in the query. Default: 1m."),
    ] = Duration("1m")

    def __post_init__(self) -> None:
        """Check the limits and the window."""
        if self.max is None and self.min is None:
            raise FieldError("a Value metric needs max, min or both")
        if self.max is not None and self.min is not None and self.min.value > self.max.value:
            raise FieldError("min is above max: no value could pass", ".min")
        require_positive(".window", self.window)


class Comparison(Strict, frozen=True, kw_only=True):
    """The candidate's number against stable's over the same window."""

    query: Annotated[
        str,
        Meta(
            description="Query with {{ revision }}; asked for the candidate and for stable.",
            min_length=1,
            max_length=4096,
        ),
    ]
    max_increase_percent: Annotated[
        int,
        Meta(description="Fails above stable's value by more than this, percent.", ge=0, le=10_000),
    ]
    window: Annotated[
        Duration,
        POSITIVE,
        Meta(description="What {{ window }} stands for in the query. Default: 1m."),
    ] = Duration("1m")

    def __post_init__(self) -> None:
        """Check the window."""
        require_positive(".window", self.window)


class Metric(Strict, frozen=True, kw_only=True):
    """One health query: a union by type."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.events) == (self.type == 'Events') && "
            "has(self.value) == (self.type == 'Value') && "
            "has(self.comparison) == (self.type == 'Comparison')",
            "a metric has exactly the member that its type names: events for Events, value for "
            "Value, comparison for Comparison",
        ),
    )

    name: Annotated[
        str,
        Meta(
            description="Name of the metric, in events and status.",
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            max_length=63,
        ),
    ]
    type: Annotated[
        Literal["Events", "Value", "Comparison"], Meta(description="Which member is set.")
    ]
    metric_source: Annotated[
        _SourceName | None,
        Meta(
            description="MetricSource to ask, or 'pods': the operator scrapes the revision's pods. "
            "Default: the analysis's.",
        ),
    ] = None
    events: Annotated[
        Events | None, Meta(description="For type Events: a share of bad events.")
    ] = None
    value: Annotated[Value | None, Meta(description="For type Value: a number against limits.")] = (
        None
    )
    comparison: Annotated[
        Comparison | None,
        Meta(description="For type Comparison: the candidate's number against stable's."),
    ] = None

    def __post_init__(self) -> None:
        """Check the union."""
        members = {"Events": self.events, "Value": self.value, "Comparison": self.comparison}
        for name, member in members.items():
            if (member is not None) != (name == self.type):
                path = f".{name.lower()}"
                raise FieldError(
                    f"is missing, but the type is {self.type}"
                    if member is None
                    else f"does not belong to type {self.type}",
                    path,
                )


class OnInsufficient(Strict, frozen=True, kw_only=True):
    """What happens when samples are missing for too long (never when a source fails)."""

    hold: Annotated[
        Duration,
        POSITIVE,
        Meta(description="How long to wait for samples at an unchanged weight. Default: 10m."),
    ] = Duration("10m")
    then: Annotated[
        Literal["Rollback", "Keep"],
        Meta(description="What then: Rollback, or Keep holding. Default: Rollback."),
    ] = "Rollback"

    def __post_init__(self) -> None:
        """Check the duration."""
        require_positive(".hold", self.hold)


class Analysis(Strict, frozen=True, kw_only=True):
    """How the health of a revision is judged."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.confidence) || "
            "(double(self.confidence) > 0.0 && double(self.confidence) < 1.0)",
            "confidence is a probability: above 0 and below 1, such as '0.99'",
        ),
    )

    interval: Annotated[
        Duration, POSITIVE, Meta(description="Time between two looks at a metric. Default: 5s.")
    ] = Duration("5s")
    confidence: Annotated[
        Decimal,
        Meta(
            description="1 minus the probability that a healthy rollout is rolled back by any of "
            "its sequential tests, all metrics and steps together. Default: '0.99'."
        ),
    ] = Decimal("0.99")
    metric_source: Annotated[
        _SourceName,
        Meta(
            description="MetricSource of metrics that name none. Default: 'pods', the operator "
            "scrapes the revision's pods.",
        ),
    ] = PODS_SOURCE
    metrics: Annotated[
        tuple[Metric, ...],
        Meta(
            description="Health queries. Default: at most 1 % of requests answered with 5xx, at "
            "most twice stable's share of other 4xx than 429, p99 latency at most 50 % above "
            "stable's. Readiness and crash loops count without a query.",
            max_length=16,
            extra_json_schema=map_by("name"),
        ),
    ] = ()
    on_insufficient: Annotated[
        OnInsufficient,
        Meta(description="When samples are missing. Default: hold 10m, then Rollback."),
    ] = OnInsufficient()

    def __post_init__(self) -> None:
        """Check the interval, the probability and the names."""
        require_positive(".interval", self.interval)
        if not 0 < self.confidence.value < 1:
            raise FieldError("must be above 0 and below 1, such as '0.99'", ".confidence")
        seen: set[str] = set()
        for index, metric in enumerate(self.metrics):
            if metric.name in seen:
                raise FieldError(
                    f"{metric.name!r} is the name of another metric too", f".metrics[{index}].name"
                )
            seen.add(metric.name)


DEFAULT_STEPS: Final = tuple(
    Step(set_weight=SetWeight(percent=percent, duration=Duration("2m"))) for percent in (5, 25, 50)
)


class Rollout(Strict, frozen=True, kw_only=True):
    """How a new revision may take over. `steps` is never empty."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.steps) || "
            "self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight.percent).isSorted()"
            " && self.steps.all(s, !has(s.setWeight) || self.steps.exists_one(t, "
            "has(t.setWeight) && t.setWeight.percent == s.setWeight.percent))",
            "weights must rise from step to step, such as 5, 25, 50",
        ),
        Rule(
            "!has(self.steps) || self.steps.exists(s, has(s.setWeight))",
            "steps need a setWeight, such as {percent: 5, duration: 2m}: a candidate without "
            "requests cannot be judged",
        ),
    )

    steps: Annotated[
        tuple[Step, ...],
        Meta(
            description="Weights and pauses, in order, at least one weight; weights rise, and "
            "after the last step the candidate is promoted. Default: 5 %, 25 % and 50 % for 2m "
            "each.",
            min_length=1,
            max_length=32,
            extra_json_schema=ATOMIC,
        ),
    ] = DEFAULT_STEPS
    preflight: Annotated[
        PreflightPolicy,
        Meta(
            description="What a candidate must be before its first request. Default: compatible "
            "with stable."
        ),
    ] = PreflightPolicy()
    progress_deadline: Annotated[
        Duration,
        POSITIVE,
        Meta(
            description="Longest wait for ready pods, for room or for the gateway, before the "
            "candidate is taken off, or the first revision of all is called failed. Holds and "
            "pauses do not count, nor does evidence that is slow to come in. Default: 30m."
        ),
    ] = Duration("30m")
    bake: Annotated[
        Bake,
        Meta(
            description="How long the former stable revision stays warm after a promotion. "
            "Default: all its pods for 10m."
        ),
    ] = Bake()
    analysis: Annotated[
        Analysis,
        Meta(
            description="How the health of the candidate is judged. Default: by failed requests "
            "and latency, read from its pods."
        ),
    ] = Analysis()

    def __post_init__(self) -> None:
        """Check the weights, that they rise, and the deadline."""
        weights = [(i, s.set_weight.percent) for i, s in enumerate(self.steps) if s.set_weight]
        if not weights:
            raise FieldError(
                "need a setWeight, such as {percent: 5, duration: 2m}: a candidate without "
                "requests cannot be judged",
                ".steps",
            )
        for (_, before), (index, percent) in pairwise(weights):
            if percent <= before:
                raise FieldError(
                    f"weights must rise from step to step, but {percent} follows {before}",
                    f".steps[{index}].setWeight.percent",
                )
        require_positive(".progressDeadline", self.progress_deadline)
