"""The response to a streaming request: it writes the task, then streams its frames in the format of its API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import ClassVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingress.http import sse
from ingress.http.responses import on_disconnect
from ingress.read_model.task_lookup import result_body
from ingress.runtime import Ingress
from ingress.submission.service import PreparedTask, TaskSubmission
from ingress.submission.submitter import Ticket
from ingress.waiting.blocking import WaitOutcome
from ingress.waiting.streaming import Stream, StreamError

FIRST_BYTE_S = 10.0
"""The status line is sent by then, because proxies time out on a silent server."""
STALL_TIMEOUT_S = 60.0
"""A client that reads nothing from a full socket for this long counts as disconnected."""


class EventStream(Response):
    """One client's stream.

    The headers are sent with the first frame, so that a task that cannot be written gets a plain error response.
    """

    route: str
    """Its name in the metrics."""
    keep_alive: ClassVar[bytes] = sse.KEEP_ALIVE
    """Sent while the model produces nothing."""
    cancels_on_timeout: ClassVar[bool] = True

    def __init__(
        self, ingress: Ingress, submission: TaskSubmission, prepared: PreparedTask, *, hold_s: float | None = None
    ) -> None:
        ticket = prepared.ticket
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "x-task-id": ticket.text}
        super().__init__(status_code=200, headers=headers, media_type=sse.MEDIA_TYPE)
        del self.headers["content-length"]
        self._ingress = ingress
        self._submission = submission
        self._ticket = ticket
        self._caller = prepared.caller
        self._prepared: PreparedTask | None = prepared
        self._hold_s = hold_s
        self._started = False

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        """Return the frames of some payloads of the upstream."""
        return sse.frames(payloads)

    def final_frames(self, ending: WaitOutcome | None, failure: StreamError | None, *, error_sent: bool) -> bytes:
        """Return the end of the stream.

        Args:
            ending: why it ended before its outcome; else None.
            failure: how the task failed; None for a good end.
            error_sent: the upstream sent the error in its last frame.
        """
        raise NotImplementedError

    async def plain_response(self, ending: WaitOutcome | None, failure: StreamError | None) -> Response | None:  # noqa: ARG002 - a hook
        """Return a plain error response for a stream that failed before its status line, if the API has one."""
        return None

    def answered_by(self, ticket: Ticket) -> None:
        """Use the headers of the task whose result is streamed: for a duplicate the original."""
        self.headers["x-task-id"] = ticket.text

    def silence_s(self) -> float:
        """Return how often the keep-alive is written."""
        return min(self._ingress.settings.ingress.keep_alive_s, FIRST_BYTE_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client."""
        stream = Stream()
        async with self._submission.registered(self._ticket, self._caller, stream):
            if self._prepared is not None:
                await self._submission.produce(self._prepared)
                self._prepared = None  # it holds the task's body
            async with (
                self._submission.resolved_original(self._ticket, stream) as counts,
                on_disconnect(receive, stream.on_gone),
            ):
                if counts is not self._ticket:
                    stream.use_stored_result()
                    self._ticket = counts
                    self.answered_by(counts)
                await self._deliver(stream, scope, receive, send)
        stopped = stream.failure is not None and stream.failure.code == "stream_interrupted"
        left = not self._ticket.keyed and (stream.ending is WaitOutcome.GONE or stopped)
        if left or (stream.ending is WaitOutcome.TIMEOUT and self.cancels_on_timeout):
            reason = stream.ending.value if stream.ending is not None else "the stream was interrupted"
            await self._submission.cancel(self._ticket, reason=reason)
        status = stream.ending.name.lower() if stream.ending else "failed" if stream.failure else "200"
        self._ingress.metrics.answers.labels(self.route, "streaming", status).inc()

    async def _deliver(self, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        following = stream.follow(
            deadline_ms=self._ticket.deadline_ms,
            silence_s=self.silence_s(),
            body=partial(result_body, self._ingress.blobs),
            hold_s=self._hold_s,
        )
        try:
            async with aclosing(following):
                async for payloads in following:
                    data = self.encode(payloads) if payloads else self.keep_alive
                    if data:
                        await self._write(send, data)
            if stream.ending is not WaitOutcome.GONE:
                ended = stream.ending is not None or stream.failure is not None
                if ended and not self._started and (plain := await self.plain_response(stream.ending, stream.failure)):
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        return await plain(scope, receive, send)
                words = self.final_frames(stream.ending, stream.failure, error_sent=stream.error_sent)
                await self._write(send, words, more=False)
        except TimeoutError:
            stream.on_gone()

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(STALL_TIMEOUT_S):
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})
