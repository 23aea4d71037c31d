"""Steps of which each is tried, although one before it was refused."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from model_operator.adapters.kube import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
)
from model_operator.adapters.ownership import NotOursError

T = TypeVar("T")

_REFUSALS: Final = (ForbiddenError, InvalidError, NotFoundError, NotOursError, ServerError)
"""What one object's step met, and what another's may not meet. A conflict is none: it means that
the whole case is old; nor is silence: the next call would most likely meet it too."""


@dataclass(slots=True)
class Attempts:
    """Keeps what was refused until all has been tried.

    Attributes:
        refusals: In the order in which they came.
    """

    refusals: list[Exception] = field(default_factory=list)

    async def __call__(self, step: Awaitable[T]) -> T | None:
        """What the step returns, None when it was refused."""
        try:
            return await step
        except _REFUSALS as refusal:
            self.refusals.append(refusal)
            return None

    def settle(self) -> None:
        """Raise the first refusal, if there was one."""
        for refusal in self.refusals:
            raise refusal
