"""What the operator tells of itself: logs, metrics, health."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest

from model_operator.core.decision import Promoted, RolledBack, StepEntered
from model_operator.engine.store import Key
from model_operator.engine.telemetry import HealthServer, JsonFormatter, Metrics

KEY = Key("vision", "digits")


@pytest.fixture
async def health() -> AsyncIterator[HealthServer]:
    server = HealthServer(Metrics(), host="127.0.0.1", port=0)
    await server.start()
    yield server
    await server.stop()


async def get(server: HealthServer, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_it_is_alive_before_it_is_ready(health: HealthServer) -> None:
    assert (await get(health, "/healthz"))[0] == 200
    assert (await get(health, "/readyz"))[0] == 503
    health.ready = True
    assert (await get(health, "/readyz"))[0] == 200


async def test_metrics_are_served_in_the_text_format(health: HealthServer) -> None:
    status, text = await get(health, "/metrics")
    assert status == 200
    assert "# TYPE model_operator_rollouts_total counter" in text


def test_ends_of_rollouts_are_counted_by_team_and_result_and_steps_are_not() -> None:
    metrics = Metrics()
    metrics.transition(KEY, "vision-team", StepEntered("digits-2", 0, 5))
    metrics.transition(KEY, "vision-team", Promoted("digits-2", "digits-1"))
    metrics.transition(KEY, "vision-team", RolledBack("digits-3", "AnalysisFailed", "why"))
    text = metrics.render().decode()
    labels = 'name="digits",namespace="vision",result="{}",team="vision-team"'
    assert f"model_operator_rollouts_total{{{labels.format('promoted')}}} 1.0" in text
    assert f"model_operator_rollouts_total{{{labels.format('rolled_back')}}} 1.0" in text
    assert text.count("model_operator_rollouts_total{") == 2


def test_the_time_from_verdict_to_route_is_measured_once_for_each_failure() -> None:
    metrics = Metrics()
    metrics.lowered(KEY)  # a weight that fell for another reason
    metrics.verdict(KEY, "fail", failed=True)
    metrics.lowered(KEY)
    metrics.lowered(KEY)
    assert "model_operator_verdict_to_route_seconds_count 1.0" in metrics.render().decode()


def test_a_log_line_is_one_json_object_even_with_a_traceback() -> None:
    trace = (ValueError, ValueError("two\nlines"), None)
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "%s failed", ("it",), trace)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["message"]) == ("warning", "it failed")
    assert "ValueError" in parsed["exception"]
