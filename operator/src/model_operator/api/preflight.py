"""`spec.rollout.preflight`: what is compared with stable before a candidate's first request."""

from typing import Annotated, Literal

from msgspec import Meta

from model_operator.api.base import Strict


class PreflightPolicy(Strict, frozen=True, kw_only=True):
    """What a candidate must be before its first request."""

    signature: Annotated[
        Literal["Compatible", "Any"],
        Meta(
            description="Compatible: it takes every request that stable takes, and gives every "
            "output that stable gives; a fixed dimension may become one of any size, and outputs "
            "may be added. Any: inputs and outputs are not compared. Default: Compatible."
        ),
    ] = "Compatible"
