"""What is watched when the user names no metrics: the model server's own counters.

The expressions are PromQL that both kinds of source understand, so that they can be copied into a
ModelDeployment and changed there.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_operator.api.types import Comparison, Decimal, Events, Metric


@dataclass(frozen=True, slots=True)
class EventsAgainstStable:
    """A share of bad events that has no limit of its own, only stable's for a measure.

    Attributes:
        name: The metric's name.
        bad: Query for the counters of bad events.
        total: Query for the counters of all events.
        tolerance: Largest healthy multiple of stable's share.
        min_events: New events of the candidate that a step needs to pass.
    """

    name: str
    bad: str
    total: str
    tolerance: float
    min_events: int


_LABELS = 'namespace="{{ namespace }}",revision="{{ revision }}"'

ERRORS = Metric(
    name="errors",
    type="Events",
    events=Events(
        bad=f'sum by (pod) (model_server_requests_total{{{_LABELS},code=~"5.."}})',
        total=f"sum by (pod) (model_server_requests_total{{{_LABELS}}})",
        max_rate=Decimal("0.01"),
        min_events=50,
    ),
)
"""Requests that the model or its server failed, at most 1 %."""

CLIENT_ERRORS = EventsAgainstStable(
    name="client-errors",
    bad=f'sum by (pod) (model_server_requests_total{{{_LABELS},code=~"4..",code!="429"}})',
    total=f"sum by (pod) (model_server_requests_total{{{_LABELS}}})",
    tolerance=2.0,
    min_events=50,
)
"""Requests that the model refused, at most twice as many as stable refuses. A model whose inputs
changed refuses what stable takes. 429 says that there is too little capacity, not that it is bad.
"""

LATENCY = Metric(
    name="latency",
    type="Comparison",
    comparison=Comparison(
        query="histogram_quantile(0.99, sum by (le) "
        f"(rate(model_server_request_duration_seconds_bucket{{{_LABELS}}}[{{{{ window }}}}])))",
        max_increase_percent=50,
    ),
)
"""99th percentile of the request duration, at most half as much again as stable's."""

DEFAULT_METRICS: tuple[Metric | EventsAgainstStable, ...] = (ERRORS, CLIENT_ERRORS, LATENCY)
