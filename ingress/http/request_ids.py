"""X-Request-Id: every answer has one, and so have the log lines of its request.

A client's own is kept, so that its log and ours can be laid side by side.
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
    """Stands before everything else, so that the answer to an error of ours has one as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = request_id(scope["headers"])
        REQUEST_ID.set(named)  # never taken back: the server's own words on this request come after it

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_RAW, named.encode())]
            await send(message)

        await self._app(scope, receive, sending)


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return what the client calls its request; a new name when it gives none, several, or one that no log can take."""
    given = [value for name, value in headers if name == _RAW]
    return given[0].decode() if len(given) == 1 and _SANE.fullmatch(given[0]) else new_id()


def new_id() -> str:
    """Return a name that no other request has."""
    return uuid4().hex
