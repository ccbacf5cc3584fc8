"""uvicorn's httptools protocol with bounds: on the head of a request, on its slowness, on the number of connections.

The parser itself buffers a head without end and waits for ever. Refusals leave in the dialect of the path, as those of
the application do.
"""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar

from starlette.responses import Response
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingress.http.errors import ApiProblem, Dialects
from ingress.http.request_ids import HEADER, new_id

MAX_HEAD_BYTES = 65_536
"""Request line and headers together; most servers stop at 8 to 64 KB."""
END_OF_HEAD = b"\r\n\r\n"
_UPGRADE = re.compile(rb"(\n)upgrade(?=:)", re.IGNORECASE)
_UPGRADE_BEGUN = re.compile(rb"\n(?:u(?:p(?:g(?:r(?:a(?:de?)?)?)?)?)?)?\Z", re.IGNORECASE)
"""The line end counts, too: without it the name in the next packet could be part of another."""
HEAD_TIMEOUT_S = 20.0
"""From the first byte of a head to its last: what Apache allows, too."""
BODY_WINDOW_S = 20.0
BODY_WINDOW_BYTES = 10_000
"""A body must make this much way in each window while we read: 500 bytes per second, as Apache asks."""
FULL_LINGER_S = 2.0
"""How long a connection beyond the limit stays open for its first bytes, so that it gets an error response."""
FULL_RETRY_S = 5
PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class PlainCycle(RequestResponseCycle):
    """An answer to HTTP/1.0, which knows no chunks: one without a length ends with its connection."""

    _bounded = True

    async def send(self, message: ASGISendEvent) -> None:
        """Write a part of the answer."""
        if message["type"] == "http.response.start":
            self._bounded = any(name.lower() == b"content-length" for name, _ in message.get("headers", []))
            if not self._bounded:
                self.chunked_encoding = False
        elif message["type"] == "http.response.body" and not self._bounded:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class LimitedHttp(HttpToolsProtocol):
    """One connection; closed with a refusal when it passes a bound."""

    dialects: ClassVar[Dialects]
    max_connections: ClassVar[int]

    _in_head = True
    _head_bytes = 0
    _body_bytes = 0
    _tail = b""
    _held = b""
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    def bounded(cls, dialects: Dialects, *, max_connections: int) -> type[LimitedHttp]:
        """Return the protocol of a server."""
        return type("BoundedHttp", (cls,), {"dialects": dialects, "max_connections": max_connections})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection that says something in time."""
        super().connection_made(transport)
        # uvicorn starts this timer only after a response: a connection that sends nothing would never be closed.
        wait_s = FULL_LINGER_S if self._full() else self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless a bound is passed."""
        if self.transport.is_closing() or (self._in_head and not self._admits(data)):
            return
        if self._in_head:
            data = self._without_upgrade(data)
        super().data_received(data)
        self._watch()

    def on_headers_complete(self) -> None:
        """Stop counting; called by the parser."""
        self._in_head = False
        self._disarm()
        super().on_headers_complete()

        if self.parser.get_http_version() == "1.0":
            # uvicorn makes the cycle itself; its task has not begun to run.
            self.cycle.__class__ = PlainCycle

    def on_body(self, body: bytes) -> None:
        """Count what comes; called by the parser."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the counters; called by the parser."""
        self._in_head, self._head_bytes, self._tail = True, 0, b""
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuse what the parser does not understand."""
        self._refuse(400, "invalid_request", "this is not valid HTTP", b"")

    def _admits(self, data: bytes) -> bool:
        """Count a piece of a head; refuse and return False when it is too much."""
        if self._full() and self._current() is None:
            headers = {"retry-after": str(FULL_RETRY_S)}
            self._refuse(503, "unavailable", "too many connections; try again", data, headers)
            return False
        if self._head_bytes + len(data) > MAX_HEAD_BYTES and not self._ends_in(data):
            message = f"the request line and the headers together exceed {MAX_HEAD_BYTES} bytes"
            self._refuse(431, "too_large", message, data)
            return False
        self._head_bytes += len(data)
        self._tail = data[-len(END_OF_HEAD) :]
        return True

    def _watch(self) -> None:
        """Arm the timer of a message that is not complete; most come in one piece and need none."""
        if self._timer is None:
            if not self._in_head:
                self._body_bytes = 0
                self._timer = self.loop.call_later(BODY_WINDOW_S, self._look_at_body)
            elif self._head_bytes:
                self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)
        elif self._in_head and not self._head_bytes:
            self._disarm()

    def _full(self) -> bool:
        return len(self.connections) > self.max_connections

    def _without_upgrade(self, data: bytes) -> bytes:
        """Rename the header Upgrade: the parser would take what follows for another protocol, and lose the body.

        Java's HTTP client asks every plain server for HTTP/2 in this way. What may be the beginning of the name, at the
        end of a packet, is held back until the next.
        """
        data, self._held = self._held + data, b""
        end = data.find(END_OF_HEAD)
        head = data if end < 0 else data[:end]
        rest = data[len(head) :]
        if end < 0 and not head.endswith(b"\n\n") and (begun := _UPGRADE_BEGUN.search(head)):
            head, self._held = head[: begun.start()], head[begun.start() :]
        return (_UPGRADE.sub(rb"\1ignored", head) if _UPGRADE.search(head) else head) + rest

    def _ends_in(self, data: bytes) -> bool:
        """Tell whether the head ends within the limit, as a small head before a large body does."""
        end = (self._tail + data).find(END_OF_HEAD)
        return end >= 0 and self._head_bytes - len(self._tail) + end <= MAX_HEAD_BYTES

    def _head_is_late(self) -> None:
        self._timer = None
        self._refuse(408, "request_timeout", f"the request's headers took longer than {HEAD_TIMEOUT_S:g} s", b"")

    def _look_at_body(self) -> None:
        self._timer = None
        # While we do not read, it is not the client who is slow.
        if self._body_bytes < BODY_WINDOW_BYTES and not self.flow.read_paused:
            self._refuse(408, "request_timeout", "the request's body comes too slowly", b"")
        else:
            self._body_bytes = 0
            self._timer = self.loop.call_later(BODY_WINDOW_S, self._look_at_body)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, code: str, message: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Close, with an error response unless another response has started."""
        self._disarm()
        self._unset_keepalive_if_required()
        if not self._answering() and not self.transport.is_closing():
            more = {**(headers or {}), HEADER: new_id(), "connection": "close"}
            problem = ApiProblem(status, code, message, headers=more)
            self.transport.write(_raw(self.dialects.of(self._path(data))(problem)))
        self.transport.close()

    def _answering(self) -> bool:
        """Tell whether an answer is begun, or due to a request before the one that is refused."""
        cycle = self._current()
        if cycle is None or cycle.response_complete:
            return False
        return self._in_head or cycle.response_started or bool(self.pipeline)

    def _current(self) -> RequestResponseCycle | None:
        """Return the last request; uvicorn's type does not say that there may be none yet."""
        return self.cycle

    def _path(self, data: bytes) -> str:
        """Return the path, as far as it is known: of a head that is being parsed, or from the bytes that were not."""
        url: bytes = self.url if self._head_bytes or not self._in_head else data[:256].partition(b" ")[2]
        return url.partition(b" ")[0].partition(b"?")[0].decode("latin-1")


def _raw(response: Response) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers)
    status = f"HTTP/1.1 {response.status_code} {PHRASES[response.status_code]}\r\n"
    return status.encode() + lines + b"\r\n" + bytes(response.body)
