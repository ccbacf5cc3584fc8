"""The streamed answer of put: `data:` frames, comments while it is silent, an error frame or [DONE] at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingress import sse
from ingress.api import bella_wire as wire
from ingress.blocking import Ending
from ingress.disconnect import watched
from ingress.idempotency import judged
from ingress.services import Services
from ingress.streaming import Failure, Stream
from ingress.submit import Ticket

START_S = 10.0
"""The status line goes out by then, for proxies give up on a server that is silent for long."""
STUCK_S = 60.0
"""A client that takes nothing from a full socket for this long counts as gone."""
DONE = sse.frame(sse.DONE)
ENDED = {
    Ending.TIMEOUT: Failure("the task timed out and was cancelled", "server_error", "timeout"),
    Ending.SHUTDOWN: Failure(
        "this process is shutting down; the task goes on, fetch it with GET /v1/queue/{task_id}",
        "server_error",
        "server_shutdown",
    ),
}


class BellaStream(Response):
    """Writes the task, then streams what becomes of it.

    The headers are sent with the first frame, so that a task that cannot be written is answered with a plain error.
    """

    def __init__(self, services: Services, ticket: Ticket, submit: Callable[[], Awaitable[None]]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "x-task-id": ticket.text}
        super().__init__(status_code=200, headers=headers, media_type=sse.MEDIA_TYPE)
        del self.headers["content-length"]
        self._services = services
        self._ticket = ticket
        self._submit: Callable[[], Awaitable[None]] | None = submit
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one client."""
        stream = Stream()
        with self._services.waiters.registered(self._ticket.key, stream):
            if self._submit is not None:
                await self._submit()
                self._submit = None  # it holds the task's body
            async with judged(self._services, self._ticket, stream) as counts, watched(receive, stream.on_gone):
                if counts is not self._ticket:
                    stream.from_outcome()
                    self._ticket = counts
                    self.headers["x-task-id"] = counts.text
                await self._deliver(stream, send)
        stopped = stream.failure is not None and stream.failure.code == "stream_interrupted"
        left = not self._ticket.keyed and (stream.ending is Ending.GONE or stopped)
        if left or stream.ending is Ending.TIMEOUT:
            reason = stream.ending.value if stream.ending is not None else "the stream was interrupted"
            await self._services.cancel(self._ticket, reason=reason)
        status = stream.ending.name.lower() if stream.ending else "failed" if stream.failure else "200"
        self._services.metrics.answers.labels("put", "streaming", status).inc()

    async def _deliver(self, stream: Stream, send: Send) -> None:
        silence_s = min(self._services.settings.ingress.keep_alive_s, START_S)
        following = stream.follow(
            deadline_ms=self._ticket.deadline_ms, silence_s=silence_s, body=self._services.body_of
        )
        try:
            async with aclosing(following):
                async for payloads in following:
                    await self._write(send, sse.frames(payloads) or sse.KEEP_ALIVE)
            if stream.ending is not Ending.GONE:
                await self._write(send, self._last_words(stream), more=False)
        except TimeoutError:
            stream.on_gone()

    def _last_words(self, stream: Stream) -> bytes:
        failure = ENDED[stream.ending] if stream.ending else stream.failure
        if failure is None:
            return DONE
        if stream.told:
            return b""
        payload = wire.error_frame(failure.result, message=failure.message, kind=failure.type, code=failure.code)
        return sse.frame(payload)

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(STUCK_S):
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})
