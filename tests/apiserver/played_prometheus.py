"""Plays a Prometheus that scrapes the played pods, and all that can be wrong with one."""

from __future__ import annotations

import asyncio
import enum
import time
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.apiserver.engine_world import World

SCRAPE_INTERVAL_S: Final = 15.0
"""What a MetricSource has when it says nothing else."""
_AGE: Final = "max(timestamp("
"""How the operator asks for the time of the newest sample that a range has."""


class Sickness(enum.Enum):
    """What is wrong with its answers."""

    NONE = "nothing"
    HANGS = "hangs"
    TALKS_NONSENSE = "talks nonsense"
    IS_EMPTY = "is empty"
    SAYS_NAN = "says NaN"
    IS_OLD = "has only old samples"


@dataclass
class PlayedPrometheus:
    """Answers with what the played pods counted.

    Attributes:
        world: Whose pods.
        sickness: What is wrong now.
        takes_s: How long an answer takes, seconds.
        asked: How many questions there were.
    """

    world: World
    sickness: Sickness = Sickness.NONE
    takes_s: float = 0.0
    asked: int = field(default=0, init=False)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        text = str((await request.post())["query"])
        await asyncio.sleep(60 if self.sickness is Sickness.HANGS else self.takes_s)
        if self.sickness is Sickness.TALKS_NONSENSE:
            return web.Response(text="<html>It works!</html>")
        data = {"resultType": "vector", "result": self._result(text)}
        return web.json_response({"status": "success", "data": data})

    def _result(self, text: str) -> list[dict[str, Any]]:
        now = time.time()
        if self.sickness is Sickness.IS_EMPTY:
            return []
        if text.startswith(_AGE):
            age_s = 2 * SCRAPE_INTERVAL_S + 1 if self.sickness is Sickness.IS_OLD else 0.0
            return [{"metric": {}, "value": [now, str(now - age_s)]}]
        counts = {r: n for r, n in self.world.answered.items() if f'"{r}"' in text}
        nothing = "NaN" if self.sickness is Sickness.SAYS_NAN else None
        return [
            {"metric": {"pod": r}, "value": [now, nothing or ("0" if "5.." in text else str(n))]}
            for r, n in counts.items()
        ]
