"""`MetricSource.spec`: where samples come from. Owned by administrators."""

from typing import Annotated, Final

from msgspec import Meta

from model_operator.api.base import (
    POSITIVE,
    SET,
    Duration,
    Label,
    Name,
    Strict,
    matching,
    require_match,
    require_positive,
)

URL_PATTERN: Final = r"^https?://[^/?#\s]+(/[^?#\s]*)?$"
_URL_MESSAGE = "must be http:// or https://, a host and at most a path, without query or fragment"


class SecretKeyRef(Strict, frozen=True, kw_only=True):
    """A key of a Secret in the operator's namespace."""

    name: Annotated[str, Meta(description="Name of the Secret.", min_length=1, max_length=253)]
    key: Annotated[str, Meta(description="Key in it.", min_length=1, max_length=253)]


class Tls(Strict, frozen=True, kw_only=True):
    """TLS towards the source."""

    ca_secret: Annotated[
        SecretKeyRef | None,
        Meta(
            description="CA bundle, PEM; a Secret in the operator's namespace. Default: the "
            "system's."
        ),
    ] = None
    server_name: Annotated[
        Name | None,
        Meta(
            description="Name to verify. Default: the host of the URL.",
        ),
    ] = None


class Prometheus(Strict, frozen=True, kw_only=True):
    """A Prometheus-compatible HTTP API."""

    url: Annotated[
        str,
        Meta(
            description="Base URL, such as http://prometheus.monitoring.svc:9090.",
            max_length=2048,
            extra_json_schema=matching(URL_PATTERN, _URL_MESSAGE),
        ),
    ]
    scrape_interval: Annotated[
        Duration,
        POSITIVE,
        Meta(description="How often it scrapes; a sample older than two is none. Default: 15s."),
    ] = Duration("15s")
    timeout: Annotated[
        Duration, POSITIVE, Meta(description="Longest time for one query. Default: 5s.")
    ] = Duration("5s")
    bearer_token: Annotated[
        SecretKeyRef | None,
        Meta(description="Bearer token; a Secret in the operator's namespace. Default: none."),
    ] = None
    tls: Annotated[Tls | None, Meta(description="TLS. Default: the system's CAs.")] = None

    def __post_init__(self) -> None:
        """Check the URL and the durations."""
        require_match(".url", self.url, URL_PATTERN, _URL_MESSAGE)
        require_positive(".scrapeInterval", self.scrape_interval)
        require_positive(".timeout", self.timeout)


class MetricSourceSpec(Strict, frozen=True, kw_only=True):
    """A source of metrics; owned by administrators."""

    prometheus: Annotated[Prometheus, Meta(description="The Prometheus to ask.")]
    namespaces: Annotated[
        tuple[Label, ...],
        Meta(
            description="Namespaces that may use it. Default: all.",
            max_length=256,
            extra_json_schema=SET,
        ),
    ] = ()
