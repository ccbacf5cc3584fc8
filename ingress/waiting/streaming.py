"""A streaming request: chunks in order from one run of the task, and the result, which determines the end.

A run is one attempt by one worker. The client gets the frames of one run only: a mix of two would be a text that no
model wrote. Frames that were not received as chunks in time are taken from the result, whose body is the whole text:
lost chunks, and chunks that a slow client had no buffer for. So the shared follower never blocks, and a slow client
costs at most BUFFER_BYTES until its result arrives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from core.embedding import embedded_frame
from core.errors import HeadraceError
from core.sse import named
from ingress.http import sse
from ingress.waiting.blocking import WaitOutcome, timeout_s_of
from schemas.records import Chunk, Result

BUFFER_BYTES = 1_048_576
"""Buffer for a slow client in addition to the socket buffer: minutes of a model's text."""
CHUNK_GRACE_S = 5.0
"""A result can overtake the last chunks, which are in another topic; after this time they count as lost."""

Body = Callable[[Result], Awaitable[bytes | None]]


class StreamError(NamedTuple):
    """The error that ended a stream."""

    message: str
    type: str
    code: str | None
    result: Result | None = None


INTERRUPTED = StreamError(
    "the stream was interrupted and cannot be continued without repeating text; send the request again",
    "server_error",
    "stream_interrupted",
)


class Stream:
    """Collects the frames of one task for one client."""

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES, settle_s: float = CHUNK_GRACE_S) -> None:
        self._limit = buffer_bytes
        self._settle_s = settle_s
        self._run: tuple[int, str | None] | None = None
        self._next_seq = 0
        self._complete = True  # no chunk of the run was left out so far
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._delivered = 0
        self._last = b""
        self._interrupted = False
        self._result: Result | None = None
        self._wake = asyncio.Event()
        self.ending: WaitOutcome | None = None
        self.failure: StreamError | None = None
        self.error_sent = False
        """Whether the last frame of the upstream was the error already."""

    def on_chunk(self, chunk: Chunk) -> None:
        """Add a chunk if it continues the run that is being delivered."""
        run = (chunk["attempt"], chunk["worker"])
        if run != self._run and not self._switch(run):
            return
        if chunk["seq"] < self._next_seq:
            return  # written twice by a producer that retried
        self._complete = self._complete and chunk["seq"] == self._next_seq
        self._next_seq = chunk["seq"] + 1
        size = sum(map(len, chunk["frames"]))
        if self._complete and self._buffered + size > self._limit and self._buffer:
            self._complete = False
        if self._complete:
            self._buffer += named(chunk["frames"], chunk["events"])
            self._buffered += size
        self._wake.set()

    def on_result(self, result: Result) -> None:
        """Receive the result; later ones are ignored."""
        if self._result is None:
            self._result = result
            self._wake.set()

    def use_stored_result(self) -> None:
        """Do not wait for chunks: the whole text is taken from the result."""
        self._settle_s = 0

    def on_shutdown(self) -> None:
        """Stop, because this process stops."""
        self._end(WaitOutcome.SHUTDOWN)

    def on_gone(self) -> None:
        """Stop, because the client disconnected."""
        self._end(WaitOutcome.GONE)

    async def follow(
        self, *, deadline_ms: int, silence_s: float, body: Body, hold_s: float | None = None
    ) -> AsyncGenerator[list[bytes], None]:
        """Yield payloads as they arrive, and an empty list after each idle period; then `failure` and `ending` are set.

        Args:
            body: fetches the body of an outcome, for frames that were not taken from chunks.
            hold_s: bounds the stream of a task that may take longer.
        """
        left_s = timeout_s_of(deadline_ms)
        until = time.monotonic() + (left_s if hold_s is None else min(left_s, hold_s))
        while self.ending is None and not self._interrupted:
            if self._buffer:
                yield self._take()
            elif self._result is not None:
                async for payloads in self._finish(self._result, body):
                    yield payloads
                return
            elif (left := until - time.monotonic()) <= 0:
                self.ending = WaitOutcome.TIMEOUT
            elif not await self._woken(min(left, silence_s)) and left > silence_s:
                yield []
        if self._interrupted:
            self.failure = INTERRUPTED

    def _switch(self, run: tuple[int, str]) -> bool:
        """Switch to another run; return whether that is possible."""
        if self._result is not None and run != run_of(self._result):
            return False  # the result names the final run
        if self._run is not None and run[0] < self._run[0]:
            return False  # a worker that counted as lost still writes
        if self._delivered:
            self._interrupted = True
            self._wake.set()
            return False
        self._run, self._next_seq, self._complete = run, 0, True
        self._buffer, self._buffered = [], 0
        return True

    async def _finish(self, result: Result, body: Body) -> AsyncGenerator[list[bytes], None]:
        """Deliver the remaining frames up to the result."""
        if not self._fits(result):
            self.failure = INTERRUPTED
            return
        settled = time.monotonic() + self._settle_s
        while self.ending is None and not self._all_taken(result):
            if self._buffer:
                yield self._take()
            elif not self._complete or (left := settled - time.monotonic()) <= 0 or not await self._woken(left):
                break
        if self.ending is not None:
            return
        if result["state"] != "completed":
            self.failure = from_result(result)
            self.error_sent = sse.is_error(self._last)
            return
        if not self._all_taken(result) or (not result["chunks"] and not self._delivered):
            async for payloads in self._rest(result, body):
                yield payloads

    async def _rest(self, result: Result, body: Body) -> AsyncGenerator[list[bytes], None]:
        """Deliver from the body of the result what was not delivered from chunks."""
        try:
            text = await body(result)
        except HeadraceError:
            text = None
        if text is None:
            if result["chunks"] or self._delivered:
                self.failure = INTERRUPTED
            return
        if not result["content_type"].startswith(sse.MEDIA_TYPE):
            if not self._delivered and text:  # the upstream answered a request for a stream in one piece
                yield [embedded_frame(text, result["content_type"])]
            return
        payloads = sse.payloads(text)
        if len(payloads) < self._delivered:
            self.failure = INTERRUPTED
        elif len(payloads) > self._delivered:
            yield payloads[self._delivered :]

    def _fits(self, result: Result) -> bool:
        """Return whether the result belongs to the delivered run; switch to its run if nothing was delivered."""
        if result["state"] != "completed" or self._run == run_of(result):
            return True
        if self._delivered:
            return False
        self._run, self._next_seq, self._complete = run_of(result), 0, True
        self._buffer, self._buffered = [], 0
        return True

    def _all_taken(self, result: Result) -> bool:
        if self._buffer or not self._complete:
            return False
        return self._run != run_of(result) or self._next_seq >= result["chunks"]

    def _take(self) -> list[bytes]:
        taken, self._buffer, self._buffered = self._buffer, [], 0
        self._delivered += len(taken)
        self._last = taken[-1]
        return taken

    async def _woken(self, seconds: float) -> bool:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _end(self, ending: WaitOutcome) -> None:
        if self.ending is None:
            self.ending = ending
            self._wake.set()


def run_of(result: Result) -> tuple[int, str | None]:
    """Return the run of a result."""
    return result["attempt"], result["worker"]


def from_result(result: Result) -> StreamError:
    """Return the error of a task that did not complete."""
    status = result["status_code"]
    kind = "invalid_request_error" if 400 <= status < 500 and result["body"] is not None else "server_error"
    message = result["error_message"] or f"the upstream answered with status {status}"
    return StreamError(message, kind, result["error_code"], result)
