"""HTTP connections that end in time, so that none pins its client to one revision."""

import random
from dataclasses import dataclass
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# How long a connection that was opened but never used may still bring its request during shutdown.
_FIRST_REQUEST_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How long connections live.

    Attributes:
        max_age_s: The first answer after this age (less up to a tenth, so that connections opened
            together do not end together) carries `Connection: close`. An idle connection is not
            cut: its client might be sending at that moment.
        keep_alive_s: Idle time after which the server closes. It is longer than that of the usual
            proxies (Traefik 90 s, nginx 60 s), because the side that closes first never loses.
    """

    max_age_s: float = 30.0
    keep_alive_s: int = 120


def connection_class(settings: ConnectionSettings, revision: str) -> type[HttpToolsProtocol]:
    """Return a protocol for uvicorn that follows `settings`.

    Args:
        settings: How long connections live.
        revision: What `x-model-revision` says in the answers that no application sees.
    """

    class Connection(HttpToolsProtocol):
        """A connection with an end."""

        _receiving = False
        _expires_at = float("inf")

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            age_s = settings.max_age_s * random.uniform(0.9, 1.0)  # noqa: S311 - spreads reconnects, guards nothing
            self._expires_at = self.loop.time() + age_s
            # uvicorn starts this clock after the first answer only
            self.timeout_keep_alive_task = self.loop.call_later(
                settings.keep_alive_s, self.timeout_keep_alive_handler
            )

        def on_message_begin(self) -> None:
            self._receiving = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._receiving = False
            if self.loop.time() >= self._expires_at:
                self.cycle.keep_alive = False

        def send_400_response(self, msg: str) -> None:
            """Answer what is no HTTP in the form of every other error."""
            body = orjson.dumps({"error": msg})
            head = (
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                f"x-model-revision: {revision}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

        def shutdown(self) -> None:
            """Close once there is nothing to lose.

            uvicorn would cut a request whose head is on its way, and a connection so new that its
            request has not come yet.
            """
            if self.cycle is None or self._receiving:
                self._expires_at = 0.0
                self.loop.call_later(_FIRST_REQUEST_GRACE_S, self._close_unused)
            else:
                super().shutdown()

        def _close_unused(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Connection
