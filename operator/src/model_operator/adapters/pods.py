"""The metrics source ``pods``: the operator scrapes a revision's pods itself.

It needs nothing installed, and it is as fresh as the look that asks. What it remembers is in the
operator's memory: after a restart a window fills anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from model_operator.adapters.evaluate import PodHistory, Scrape, evaluate
from model_operator.adapters.http import TooLargeError, read_limited
from model_operator.adapters.promql import PromqlError, longest_range_s, metric_names, parse
from model_operator.adapters.sources import QueryFailedError
from model_operator.api.samples import FailureKind, Query, Samples, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from model_operator.adapters.evaluate import Result, SeriesKey

_REUSE_S: Final = 0.5
"""Queries of one look share a scrape; the next look must not."""
_KEEP_S: Final = 15.0
"""Kept beyond the longest window, so that a late look still finds the window's first scrape."""
_FORGET_S: Final = 900.0
"""What nobody asked for in this time belongs to a rollout that has ended."""
_MAX_BYTES: Final = 4 * 1024 * 1024
_CONNECTIONS: Final = 64
_POD_TIMEOUT_S: Final = 1.5
"""For one pod: a hanging one must not hold up what the others say."""


@dataclass(frozen=True, slots=True)
class PodTarget:
    """Where a pod serves its metrics.

    Attributes:
        name: The pod's name.
        host: Its IP address.
        port: Its metrics port.
    """

    name: str
    host: str
    port: int


@dataclass(slots=True)
class _Revision:
    """What is remembered of a revision's pods."""

    names: set[str] = field(default_factory=set)
    scraped_names: frozenset[str] = frozenset()
    range_s: float = 0.0
    asked: float = 0.0
    scraped: float = -1.0
    scrapes: dict[str, deque[Scrape]] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()
    failures: dict[str, str] = field(default_factory=dict)
    round: asyncio.Task[None] | None = None


class PodsSource:
    """Answers queries from the pods of the revision that a query is about.

    - A pod that does not answer has no series; its counters go on where they were when it returns.
    - When none of the revision's pods answers, the source has failed (``MetricsUnavailable``):
      pods that are really gone are for readiness to notice, not for a metric.
    - A revision without pods has no data.

    Args:
        lookup: Pods of a revision by namespace and name, as they are now.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        lookup: Callable[[str, str], Iterable[PodTarget]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._revisions: dict[tuple[str, str], _Revision] = {}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End the scrapes, which outlive the queries that began them, and close the connections."""
        rounds = [known.round for known in self._revisions.values() if known.round is not None]
        for scrape in rounds:
            scrape.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        """Scrape the revision's pods, or share the scrape of another query, and evaluate.

        Raises:
            QueryFailedError: The query is not understood, or no pod answered.
        """
        try:
            expression = parse(query.text)
            revision = self._revision(query)
            revision.names |= metric_names(expression)
            revision.range_s = max(revision.range_s, longest_range_s(expression))
            targets = tuple(self._lookup(query.namespace, query.revision))
            await self._refresh(revision, query.namespace, targets, timeout_s)
            _check(revision, targets)
            pods = [
                PodHistory(tuple(scrapes), name in revision.answered)
                for name, scrapes in revision.scrapes.items()
            ]
            return _samples(evaluate(expression, pods, self._clock()))
        except PromqlError as error:
            raise QueryFailedError(FailureKind.CONFIGURATION, str(error)) from None

    def _revision(self, query: Query) -> _Revision:
        now = self._clock()
        for key, known in list(self._revisions.items()):
            if now - known.asked > _FORGET_S:
                del self._revisions[key]
        revision = self._revisions.setdefault((query.namespace, query.revision), _Revision())
        revision.asked = now
        return revision

    async def _refresh(
        self,
        revision: _Revision,
        namespace: str,
        targets: Sequence[PodTarget],
        timeout_s: float,
    ) -> None:
        """Make sure that the last scrape is of now and has every name that was asked for."""
        if revision.round is None or revision.round.done():
            fresh = 0 <= self._clock() - revision.scraped < _REUSE_S
            if fresh and revision.names <= revision.scraped_names:
                return
            revision.round = asyncio.create_task(
                self._scrape_all(revision, namespace, targets, min(_POD_TIMEOUT_S, timeout_s / 2))
            )
        # Shielded: the query that began the round may be given up while another waits for it.
        await asyncio.shield(revision.round)

    async def _scrape_all(
        self,
        revision: _Revision,
        namespace: str,
        targets: Sequence[PodTarget],
        timeout_s: float,
    ) -> None:
        answers = await asyncio.gather(*(self._fetch(target, timeout_s) for target in targets))
        names, now = frozenset(revision.names), self._clock()
        revision.failures = {}
        for target, answer in zip(targets, answers, strict=True):
            if isinstance(answer, _Unanswered):
                revision.failures[target.name] = answer.why
                continue
            try:
                values = parse_metrics(answer, names, namespace=namespace, pod=target.name)
            except ValueError as error:
                revision.failures[target.name] = f"is no metrics text: {error}"
                continue
            revision.scrapes.setdefault(target.name, deque()).append(Scrape(now, values, names))
        revision.answered = frozenset(one.name for one in targets) - revision.failures.keys()
        revision.scraped, revision.scraped_names = now, names
        _prune(revision, now)

    async def _fetch(self, target: PodTarget, timeout_s: float) -> str | _Unanswered:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS)
            )
        url = URL.build(scheme="http", host=target.host, port=target.port, path="/metrics")
        try:
            async with self._session.get(
                url,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                headers={"Accept": "text/plain; version=0.0.4"},
                allow_redirects=False,
            ) as response:
                if response.status != HTTPStatus.OK:
                    return _Unanswered(f"answers {response.status}")
                body = await read_limited(response, _MAX_BYTES)
        except TimeoutError:
            return _Unanswered(f"no answer within {timeout_s:g} s")
        except (aiohttp.ClientError, OSError, TooLargeError) as error:
            return _Unanswered(str(error) or type(error).__name__)
        return body.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class _Unanswered:
    why: str


def parse_metrics(
    text: str, names: Collection[str], *, namespace: str, pod: str
) -> dict[SeriesKey, float]:
    """Series of the text format with these names, labelled as Prometheus labels its targets.

    Raises:
        ValueError: It is not the text format.
    """
    prefixes = tuple(names)
    # The parser is slow and a pod has many series: it sees only what was asked for.
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(prefixes))
    target = {"namespace": namespace, "pod": pod}
    return {
        (sample.name, tuple(sorted({**sample.labels, **target}.items()))): float(sample.value)
        for family in text_string_to_metric_families(wanted + "\n")
        for sample in family.samples
        if sample.name in names
    }


def _prune(revision: _Revision, now: float) -> None:
    oldest = now - revision.range_s - _KEEP_S
    for name, scrapes in list(revision.scrapes.items()):
        while scrapes and scrapes[0].time < oldest:
            scrapes.popleft()
        if not scrapes:
            del revision.scrapes[name]


def _check(revision: _Revision, targets: Sequence[PodTarget]) -> None:
    if targets and not revision.answered:
        name, why = next(iter(revision.failures.items()), (targets[0].name, "not scraped yet"))
        raise QueryFailedError(
            FailureKind.UNAVAILABLE, f"none of {len(targets)} pods answered; {name}: {why}"
        )


def _samples(result: Result) -> Samples:
    if isinstance(result, float):
        return Samples((Series((), result),))
    return Samples(tuple(Series(labels, value) for labels, value in sorted(result.items())))
