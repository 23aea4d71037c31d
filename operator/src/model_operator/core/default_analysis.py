"""What is watched when the user names no metrics: the model server's own counters.

The expressions are PromQL that both kinds of source understand, so that they can be copied into a
ModelDeployment and changed there.
"""

from __future__ import annotations

from model_operator.api.types import Comparison, Decimal, Events, Metric

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

DEFAULT_METRICS = (ERRORS, LATENCY)
