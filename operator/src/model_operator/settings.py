"""The operator's settings: `MODEL_OPERATOR_*` variables, each with its unit and default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "MODEL_OPERATOR_"


class SettingsError(ValueError):
    """A variable that cannot be read; the message names it."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Which cluster and which part of it."""

    kubeconfig: str | None = None
    """KUBECONFIG: path of a kubeconfig. Default: the pod's own account."""

    namespaces: tuple[str, ...] = ()
    """MODEL_OPERATOR_NAMESPACES: namespaces to look after, separated by commas. Default: all."""

    own_namespace: str = "model-operator"
    """MODEL_OPERATOR_NAMESPACE: the operator's own, where the Secrets of MetricSources are."""

    timeout_s: float = 10.0
    """MODEL_OPERATOR_API_TIMEOUT_SECONDS: longest time for one call. A call that hangs holds one
    worker up, and a rollback that waits for it."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the loop runs."""

    workers: int = 8
    """MODEL_OPERATOR_WORKERS: ModelDeployments that are worked on at the same time."""

    relist_s: float = 300.0
    """MODEL_OPERATOR_RELIST_SECONDS: time between two full lists, which find what the watches
    missed."""

    settle_s: float = 2.0
    """MODEL_OPERATOR_SETTLE_SECONDS: how long a revision without weight must have had no request
    before it is taken down: at least the gateway's time to take over a route."""

    drain_give_up_s: float = 60.0
    """MODEL_OPERATOR_DRAIN_GIVE_UP_SECONDS: after this a revision whose pods do not tell how many
    requests they had counts as drained."""

    rollback_enabled: bool = True
    """MODEL_OPERATOR_TEST_DISABLE_ROLLBACK=true: never roll back. For tests that show that the
    absence of rollbacks is noticed."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The Lease that elects one leader among the replicas.

    A dead leader is replaced after `duration_s` and one `retry_s` more, at most.
    """

    enabled: bool = True
    """MODEL_OPERATOR_LEASE_ENABLED=false: lead without a lease. Only for a process that is alone,
    such as one on a developer's machine."""

    name: str = "model-operator"
    """MODEL_OPERATOR_LEASE_NAME: the Lease, in the operator's own namespace."""

    identity: str = ""
    """POD_NAME: the pod's name. Default: the host's name with a random suffix."""

    duration_s: int = 12
    """MODEL_OPERATOR_LEASE_SECONDS: how long followers wait for a renewal; whole seconds."""

    renew_s: float = 8.0
    """MODEL_OPERATOR_LEASE_RENEW_SECONDS: a leader that could not renew for so long writes nothing
    more and ends. What is left until `duration_s` is for clocks of different speed."""

    retry_s: float = 2.0
    """MODEL_OPERATOR_LEASE_RETRY_SECONDS: time between two renewals, or two looks of a follower."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The inference servers that the operator runs."""

    image: str = ""
    """MODEL_OPERATOR_SERVER_IMAGE: image of new revisions that name none. Needed."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What the operator tells of itself."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod is reached by its address
    """MODEL_OPERATOR_HEALTH_HOST: address of /healthz, /readyz and /metrics."""

    port: int = 8081
    """MODEL_OPERATOR_HEALTH_PORT: port of the same; 0 takes a free one."""

    log_level: str = "info"
    """MODEL_OPERATOR_LOG_LEVEL: debug, info, warning or error."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings."""

    server: ServerSettings
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings that the environment's variables ask for.

    Raises:
        SettingsError: One is missing or cannot be read.
    """
    read = _Reader(environment)
    image = read.text("SERVER_IMAGE", "")
    if not image:
        raise SettingsError(f"{PREFIX}SERVER_IMAGE is needed: the inference server's image")
    return Settings(
        server=ServerSettings(image),
        cluster=ClusterSettings(
            kubeconfig=environment.get("KUBECONFIG") or None,
            namespaces=tuple(filter(None, read.text("NAMESPACES", "").split(","))),
            own_namespace=read.text("NAMESPACE", ClusterSettings().own_namespace),
            timeout_s=read.positive("API_TIMEOUT_SECONDS", ClusterSettings().timeout_s),
        ),
        engine=EngineSettings(
            workers=read.count("WORKERS", EngineSettings().workers),
            relist_s=read.positive("RELIST_SECONDS", EngineSettings().relist_s),
            settle_s=read.positive("SETTLE_SECONDS", EngineSettings().settle_s),
            drain_give_up_s=read.positive(
                "DRAIN_GIVE_UP_SECONDS", EngineSettings().drain_give_up_s
            ),
            rollback_enabled=not read.flag("TEST_DISABLE_ROLLBACK"),
        ),
        lease=_read_lease(read, environment.get("POD_NAME", "")),
        telemetry=TelemetrySettings(
            host=read.text("HEALTH_HOST", TelemetrySettings().host),
            port=read.count("HEALTH_PORT", TelemetrySettings().port, least=0),
            log_level=read.one_of("LOG_LEVEL", ("info", "debug", "warning", "error")),
        ),
    )


def _read_lease(read: _Reader, pod_name: str) -> LeaseSettings:
    default = LeaseSettings()
    lease = LeaseSettings(
        enabled=read.one_of("LEASE_ENABLED", ("true", "false")) == "true",
        name=read.text("LEASE_NAME", default.name),
        identity=pod_name,
        duration_s=read.count("LEASE_SECONDS", default.duration_s),
        renew_s=read.positive("LEASE_RENEW_SECONDS", default.renew_s),
        retry_s=read.positive("LEASE_RETRY_SECONDS", default.retry_s),
    )
    if not lease.retry_s < lease.renew_s < lease.duration_s:
        raise SettingsError(
            f"{PREFIX}LEASE_RETRY_SECONDS={lease.retry_s}, "
            f"{PREFIX}LEASE_RENEW_SECONDS={lease.renew_s}, "
            f"{PREFIX}LEASE_SECONDS={lease.duration_s}: must be each larger than the one before"
        )
    return lease


@dataclass(frozen=True, slots=True)
class _Reader:
    environment: Mapping[str, str]

    def text(self, name: str, default: str) -> str:
        return self.environment.get(PREFIX + name, "").strip() or default

    def positive(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if number <= 0:
            raise SettingsError(f"{PREFIX}{name}={text}: must be a number of seconds above 0")
        return number

    def count(self, name: str, default: int, *, least: int = 1) -> int:
        text = self.text(name, str(default))
        if not text.isdecimal() or int(text) < least:
            raise SettingsError(f"{PREFIX}{name}={text}: must be a whole number from {least}")
        return int(text)

    def flag(self, name: str) -> bool:
        return self.one_of(name, ("false", "true")) == "true"

    def one_of(self, name: str, values: tuple[str, ...]) -> str:
        """One of `values`, the first when nothing is set."""
        text = self.text(name, values[0]).lower()
        if text not in values:
            raise SettingsError(f"{PREFIX}{name}={text}: must be one of {', '.join(values)}")
        return text
