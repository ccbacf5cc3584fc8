"""A raw HTTP/1.1 server: the tools around a measurement must cost less than what they measure.

`RawServer` accepts, `Connection` parses (httptools), `Exchange` is one request and the means to answer it, well or
badly: a framework would not let a test send half a body or a wrong length.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum
from http import HTTPStatus
from typing import Any, Self, cast

import httptools

logger = logging.getLogger(__name__)

# Ten thousand held calls may connect at once; the kernel caps this at net.core.somaxconn.
BACKLOG = 16_384
# RST instead of FIN: linger on, zero seconds.
LINGER_NOW = struct.pack("ii", 1, 0)
POLL_SECONDS = 0.005


class Outcome(Enum):
    """How an exchange ended."""

    COMPLETED = "completed"  # all that was meant to be sent has been handed to the kernel
    DISCONNECTED = "disconnected"  # the client went away before that
    ABORTED = "aborted"  # the server broke it off


class Request:
    """One parsed request; header names are lower case."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query")

    def __init__(
        self, *, method: str, path: str, query: str, headers: dict[str, str], body: bytes, keep_alive: bool
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive


class Exchange:
    """One request and the means to answer it."""

    __slots__ = ("_connection", "_task", "counted", "key", "outcome", "request")

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._task: asyncio.Task[None] | None = None
        self.request = request
        self.key: str | None = None
        self.counted = False
        self.outcome: Outcome | None = None

    def write(self, data: bytes) -> None:
        """Send bytes; what the client does not read stays in memory until `drain`."""
        if self.outcome is None:
            self._connection.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be written."""
        await self._connection.drain()

    def finish(self, data: bytes | None = None) -> None:
        """Send the last bytes and take the connection's next request."""
        if self.outcome is None:
            if data:
                self._connection.transport.write(data)
            self._connection.ended(self, Outcome.COMPLETED, keep_alive=self.request.keep_alive)

    def hang_up(self) -> None:
        """Close in an orderly way (FIN) in the middle of the answer."""
        if self.outcome is None:
            self._connection.ended(self, Outcome.ABORTED, keep_alive=False)

    def reset(self) -> None:
        """Break the connection (RST)."""
        if self.outcome is None:
            self._connection.ended(self, Outcome.ABORTED, keep_alive=True)
            self._connection.reset()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Answer from a task; it is cancelled when the client goes away."""
        self._task = self._connection.spawn(work, self, name=name)

    def lost(self, outcome: Outcome) -> None:
        """Stop answering: the connection is gone."""
        self.outcome = outcome
        if self._task is not None:
            self._task.cancel()


class Connection(asyncio.Protocol):
    """Parses one client's requests and hands them over one at a time, in order."""

    transport: asyncio.Transport

    def __init__(self, server: RawServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._active: Exchange | None = None
        self._resumed: asyncio.Event = asyncio.Event()
        self._resumed.set()
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # `drain` then means that the kernel has everything: only so is "completed" true when it is counted.
        self.transport.set_write_buffer_limits(0)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._server.connections.discard(self)
        self._resumed.set()
        active, self._active = self._active, None
        if active is not None:
            outcome = Outcome.ABORTED if self._server.closing else Outcome.DISCONNECTED
            active.lost(outcome)
            self._server.ended(active, outcome)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.transport.write(head(400, "text/plain", 0, close=True))
            self.transport.close()
            return
        self._next()

    def pause_writing(self) -> None:
        self._resumed.clear()

    def resume_writing(self) -> None:
        self._resumed.set()

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if "expect" in self._headers:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._target.decode("latin-1").partition("?")
        self._waiting.append(
            Request(
                method=self._parser.get_method().decode("ascii"),
                path=path,
                query=query,
                headers=self._headers,
                body=b"".join(self._body),
                keep_alive=self._parser.should_keep_alive(),
            )
        )

    def _next(self) -> None:
        while self._waiting and self._active is None and not self.transport.is_closing():
            exchange = self._active = Exchange(self, self._waiting.popleft())
            self._server.handle(exchange)

    def ended(self, exchange: Exchange, outcome: Outcome, *, keep_alive: bool) -> None:
        """Record the end of the active exchange and go on, or close."""
        exchange.outcome = outcome
        self._active = None
        self._server.ended(exchange, outcome)
        if not keep_alive:
            self.transport.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    async def drain(self) -> None:
        """Wait until the transport takes more."""
        await self._resumed.wait()

    def reset(self) -> None:
        """Break the connection with an RST."""
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOW)
        self.transport.abort()

    def spawn(self, work: Coroutine[Any, Any, None], exchange: Exchange, *, name: str) -> asyncio.Task[None]:
        """Run an answer as a task that the server owns."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._server.tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._server.tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("answer failed", exc_info=error, extra={"event": "wire_answer_failed"})
                exchange.reset()

        task.add_done_callback(done)
        return task


class RawServer(ABC):
    """Listens on one port; the port stays the same over `close` and `start`, so that a test can play an outage."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.closing = False
        self._server: asyncio.Server | None = None

    @abstractmethod
    def handle(self, exchange: Exchange) -> None:
        """Answer at once, or spawn a task that does."""

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:  # noqa: B027 - a server need not listen
        """Learn how an exchange ended."""

    @property
    def root(self) -> str:
        """The address without a path."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; port 0 picks a free one."""
        self.closing = False
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and break every connection."""
        if self._server is None:
            return
        self.closing = True
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self.until(lambda: not self.connections and not self.tasks)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def until(self, condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
        """Wait until the condition holds; raise TimeoutError when it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s} s")
            await asyncio.sleep(POLL_SECONDS)


REASONS = {status.value: status.phrase for status in HTTPStatus}


def head(status: int, content_type: str, length: int | None, *, extra: str = "", close: bool = False) -> bytes:
    """Format a status line and headers; without a length the body is chunked. `extra` are whole lines."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    end = "connection: close\r\n" if close else ""
    reason = REASONS.get(status, "Unknown")
    lines = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{framing}\r\n{extra}{end}\r\n"
    return lines.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Frame a piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
