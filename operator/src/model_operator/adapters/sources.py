"""What every metrics source has in common."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from model_operator.api.samples import Answer, Failure, FailureKind, Query, Samples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterable


class QueryFailedError(Exception):
    """A source could not answer.

    Attributes:
        failure: Why, and whether asking again can help.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


class Source(Protocol):
    """Answers queries."""

    async def query(self, query: Query, *, timeout_s: float) -> Samples:
        """Ask once.

        Raises:
            QueryFailedError: No answer; it says why.
        """
        ...


PATIENCE_S: Final = 0.5
"""A source that takes longer than this, seconds, does not keep the answers of others back."""


async def ask(
    queries: Iterable[Query],
    find: Callable[[Query], Source | Failure],
    *,
    timeout_s: float = 5.0,
) -> AsyncGenerator[dict[Query, Answer]]:
    """Ask all queries at the same time, each with a deadline of its own.

    Never raises: what goes wrong is the query's answer, so that a source that hangs or a source
    that nobody configured keeps no other metric from being judged.

    Args:
        queries: What is due.
        find: The source for a query, or why there is none (no such MetricSource, a namespace that
            may not use it).
        timeout_s: Longest time for one query, seconds.

    Yields:
        All answers. When some are missing after `PATIENCE_S`, the answers so far come before that,
        and again with each one that arrives.
    """

    async def one(query: Query) -> Answer:
        source = find(query)
        if isinstance(source, Failure):
            return source
        try:
            async with asyncio.timeout(timeout_s):
                return await source.query(query, timeout_s=timeout_s)
        except QueryFailedError as error:
            return error.failure
        except TimeoutError:
            return Failure(
                FailureKind.UNAVAILABLE, f"source {query.source}: no answer within {timeout_s:g} s"
            )

    asking = {query: asyncio.ensure_future(one(query)) for query in dict.fromkeys(queries)}
    if not asking:
        yield {}
        return
    pending: Collection[asyncio.Future[Answer]] = asking.values()
    try:
        _, pending = await asyncio.wait(pending, timeout=PATIENCE_S)
        while pending:
            yield {query: task.result() for query, task in asking.items() if task.done()}
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        yield {query: task.result() for query, task in asking.items()}
    finally:
        for task in pending:
            task.cancel()
