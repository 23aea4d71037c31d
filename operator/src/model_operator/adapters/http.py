"""What the HTTP clients of the metrics sources have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


class TooLargeError(Exception):
    """A response that is larger than anything it could sensibly be."""


async def read_limited(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The body of a response, so that no peer can fill the operator's memory.

    Raises:
        TooLargeError: It is larger than ``limit_bytes``.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLargeError(f"the answer is larger than {limit_bytes} bytes")
    return bytes(body)
