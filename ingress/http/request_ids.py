"""X-Request-Id: every response has one, and so have the log lines of its request.

A client's own id is used, so that its log and ours can be correlated.
"""

from __future__ import annotations

import re
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.observability.logs import REQUEST_ID

HEADER = "x-request-id"
_RAW = HEADER.encode()
_SANE = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestIds:
    """The outermost middleware, so that error responses have a request id, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = request_id(scope["headers"])
        REQUEST_ID.set(named)  # never reset: the server logs about this request later

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_RAW, named.encode())]
            await send(message)

        await self._app(scope, receive, sending)


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the client's request id; a new one when it sends none, several, or an unsafe one."""
    given = [value for name, value in headers if name == _RAW]
    return given[0].decode() if len(given) == 1 and _SANE.fullmatch(given[0]) else new_id()


def new_id() -> str:
    """Return a unique id."""
    return uuid4().hex
