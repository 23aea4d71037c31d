"""`ModelDeployment.status`: what the operator saw and decided.

Strings have no length limits here: a status that the API server refuses for a long message would
stop a rollback from being recorded. Whoever writes a message keeps it short.
"""

from typing import Annotated, Literal

from msgspec import Meta

from model_operator.api.base import ATOMIC, Status, Time, map_by

RolloutState = Literal["Idle", "Progressing", "Paused", "Held", "Baking", "RolledBack", "Failed"]
MAX_ROLLED_BACK = 10


class Condition(Status, frozen=True, kw_only=True):
    """A condition as in the Kubernetes API conventions."""

    type: Annotated[str, Meta(description="Ready, Reconciling or Stalled.")]
    status: Annotated[
        Literal["True", "False", "Unknown"], Meta(description="True, False or Unknown.")
    ]
    reason: Annotated[str, Meta(description="The last change's reason, in CamelCase.")]
    message: Annotated[str, Meta(description="The reason in words.")] = ""
    observed_generation: Annotated[
        int, Meta(description="metadata.generation that this speaks of.")
    ] = 0
    last_transition_time: Annotated[Time, Meta(description="When status last changed.")]


class RolloutStatus(Status, frozen=True, kw_only=True):
    """Where the rollout is, for people and printer columns."""

    state: Annotated[
        RolloutState,
        Meta(
            description="Idle: none. Progressing: through its steps. Paused: until promoted, or "
            "for the pause's time. Held: evidence is missing, the weight is frozen. Baking: "
            "promoted, the former revision is still warm. RolledBack: back on stable. Failed: "
            "the first revision never served."
        ),
    ] = "Idle"
    reason: Annotated[str, Meta(description="Why this state, in CamelCase.")] = ""
    message: Annotated[str, Meta(description="The reason in words, with its numbers.")] = ""
    since_time: Annotated[Time | None, Meta(description="When this state began.")] = None


class StableStatus(Status, frozen=True, kw_only=True):
    """The revision that users are on."""

    revision: Annotated[str, Meta(description="Name of the ModelRevision.")]
    digest: Annotated[str, Meta(description="Digest of its model.")] = ""
    replicas: Annotated[int, Meta(description="Pods that it should have.")] = 0
    ready_replicas: Annotated[int, Meta(description="Pods that are ready.")] = 0
    since_time: Annotated[Time | None, Meta(description="When it became stable.")] = None


class CandidateStatus(Status, frozen=True, kw_only=True):
    """The revision that is being introduced."""

    revision: Annotated[str, Meta(description="Name of the ModelRevision.")]
    digest: Annotated[str, Meta(description="Digest of its model.")] = ""
    replicas: Annotated[int, Meta(description="Pods that it should have.")] = 0
    ready_replicas: Annotated[int, Meta(description="Pods that are ready.")] = 0
    step: Annotated[int, Meta(description="Index of the present step; -1 before the first.")] = -1
    path: Annotated[
        str | None,
        Meta(description="The steps taken so far, such as '5 25 pause', to notice an edit."),
    ] = None
    percent: Annotated[int, Meta(description="Planned weight at this step, percent.")] = 0
    start_time: Annotated[Time | None, Meta(description="When it became the candidate.")] = None
    step_start_time: Annotated[
        Time | None, Meta(description="When the present step's weight was confirmed.")
    ] = None
    step_elapsed_seconds: Annotated[
        float,
        Meta(description="Time that counted for this step until stepClockTime, seconds."),
    ] = 0.0
    step_clock_time: Annotated[
        Time | None,
        Meta(description="Since when the step's clock runs; none while it is stopped."),
    ] = None
    insufficient_since_time: Annotated[
        Time | None, Meta(description="Since when samples are missing.")
    ] = None
    waiting_since_time: Annotated[
        Time | None,
        Meta(description="Since when capacity or the route is awaited; the progress deadline's."),
    ] = None
    floor_replicas: Annotated[
        int, Meta(description="Pods of stable when the rollout began: none goes below it.")
    ] = 0
    pause_released: Annotated[bool, Meta(description="A request ended the present pause.")] = False
    warm: Annotated[
        bool,
        Meta(
            description="It was stable before and its pods still run: steps are skipped, its "
            "weight follows its ready pods."
        ),
    ] = False
    next_action_time: Annotated[
        Time | None, Meta(description="When the next step is due at the earliest.")
    ] = None


class FormerStatus(Status, frozen=True, kw_only=True):
    """The revision that was stable before, while it is kept warm or drained."""

    revision: Annotated[str, Meta(description="Name of the ModelRevision.")]
    replicas: Annotated[int, Meta(description="Pods that it should have.")] = 0
    ready_replicas: Annotated[int, Meta(description="Pods that are ready.")] = 0
    digest: Annotated[str, Meta(description="Digest of its model.")] = ""
    rollout_start_time: Annotated[
        Time | None, Meta(description="startTime of the rollout that took its place.")
    ] = None
    floor_replicas: Annotated[int, Meta(description="Pods it keeps until the bake's end.")] = 0
    bake_end_time: Annotated[Time | None, Meta(description="When the bake ends.")] = None


class TrafficStatus(Status, frozen=True, kw_only=True):
    """One revision's share of the traffic."""

    revision: Annotated[str, Meta(description="Name of the ModelRevision.")]
    desired_percent: Annotated[int, Meta(description="Weight that the route should have, percent.")]
    confirmed_percent: Annotated[
        int | None,
        Meta(description="Weight that the gateway is known to apply, percent; none: not known."),
    ] = None


class RolledBackStatus(Status, frozen=True, kw_only=True):
    """A revision that is not tried again by itself."""

    revision: Annotated[str, Meta(description="Name of the ModelRevision.")]
    reason: Annotated[str, Meta(description="Why, in CamelCase.")]
    message: Annotated[str, Meta(description="Why, in words, with the numbers.")] = ""
    time: Annotated[Time, Meta(description="When its weight was set to 0.")]
    released: Annotated[
        bool,
        Meta(
            description="The spec has named another revision since: named again, this one is "
            "tried again."
        ),
    ] = False


class RequestStatus(Status, frozen=True, kw_only=True):
    """The last request of a person and what became of it."""

    id: Annotated[str, Meta(description="The request's own id: it is done once.")]
    action: Annotated[str, Meta(description="What was asked for.")]
    revision: Annotated[str, Meta(description="The revision that it was meant for.")] = ""
    result: Annotated[str, Meta(description="Done, or why it was refused.")] = ""
    time: Annotated[Time, Meta(description="When the operator dealt with it.")]


class ModelDeploymentStatus(Status, frozen=True, kw_only=True):
    """What the operator saw and decided."""

    observed_generation: Annotated[
        int, Meta(description="metadata.generation that the operator has acted on.")
    ] = 0
    replicas: Annotated[int, Meta(description="Pods of the stable revision, for /scale.")] = 0
    selector: Annotated[
        str, Meta(description="Label selector of the stable revision's pods, for /scale.")
    ] = ""
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            description="Ready: the model is served. Reconciling: a rollout is under way. "
            "Stalled: it needs someone.",
            max_length=16,
            extra_json_schema=map_by("type"),
        ),
    ] = ()
    rollout: Annotated[RolloutStatus, Meta(description="Where the rollout is.")] = RolloutStatus()
    stable: Annotated[StableStatus | None, Meta(description="The revision that users are on.")] = (
        None
    )
    candidate: Annotated[
        CandidateStatus | None, Meta(description="The revision that is being introduced.")
    ] = None
    former: Annotated[
        FormerStatus | None,
        Meta(description="The revision that was stable before, while it is kept or drained."),
    ] = None
    traffic: Annotated[
        tuple[TrafficStatus, ...],
        Meta(
            description="Share of the requests of each revision.",
            max_length=16,
            extra_json_schema=map_by("revision"),
        ),
    ] = ()
    rolled_back: Annotated[
        tuple[RolledBackStatus, ...],
        Meta(
            description="Revisions that are not tried again until the spec names another one or "
            "someone asks for a retry; the latest last.",
            max_length=MAX_ROLLED_BACK,
            extra_json_schema=ATOMIC,
        ),
    ] = ()
    last_request: Annotated[
        RequestStatus | None, Meta(description="The last request of a person.")
    ] = None
