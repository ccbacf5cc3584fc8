"""Relay one streamed response from the upstream to the chunk records."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from core import lenient_json
from core.errors import Unavailable
from core.sse import Payload, SseParser, event_of
from core.storage.spool import Spool, Spooled
from core.upstream_errors import reported_in_frame
from core.usage import usage_of
from dispatcher.inference.chunk_writer import ChunkWriter
from dispatcher.inference.outcome import Failure, Report
from dispatcher.inference.upstream import CallError
from schemas.common import Usage
from schemas.media_types import EVENT_STREAM, JSON
from schemas.records import Outcome

LINGER_S = 0.5
"""After [DONE] the end of the response is awaited this long, so that the connection can be reused."""
_FINISHED = re.compile(
    rb'"finish_reason"\s*:\s*"|"type"\s*:\s*"(?:transcript\.text\.done|image_(?:generation|edit)\.completed)"'
)
"""Part of the last frame of a text; speech and image streams may end with it and without [DONE]."""
_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class Relay:
    """Forwards the frames, and stores the whole text for readers of the result."""

    def __init__(self, writer: ChunkWriter, spool: Spool, *, limit_bytes: int) -> None:
        """`spool` stores the text."""
        self._writer = writer
        self._spool = spool
        self._limit = limit_bytes
        self._parser = SseParser()
        self._finished = False
        self._with_usage: bytes | None = None

    @property
    def chunks(self) -> int:
        """Return the number of chunk records."""
        return self._writer.count

    @property
    def first_token_ms(self) -> int | None:
        """Return when the first frame arrived."""
        return self._writer.first_ms

    def started(self) -> bool:
        """Return whether a token has been delivered, so that the attempt must not be repeated."""
        return self._writer.count > 0

    @property
    def text(self) -> bytes | None:
        """Return the stream as received, unless it is too large for a record."""
        return self._spool.text

    async def finish(self) -> Spooled:
        """Return where the whole text is stored; raises CallError when the store is unavailable."""
        try:
            return await self._spool.finish()
        except Unavailable as error:
            raise CallError(Failure.STORAGE, error.message) from error

    def delivered(self, outcome: Outcome) -> Outcome:
        """Add the part of the stream that was delivered to the outcome of a failure."""
        chunks, text = self.chunks, self.text
        return {
            **outcome,
            "chunks": chunks,
            "retriable": outcome["retriable"] and not chunks,
            "body": (text or None) if chunks else outcome["body"],
            "content_type": EVENT_STREAM if chunks and text else JSON,
            "usage": self.usage,
            "first_token_ms": self.first_token_ms,
        }

    async def with_body(self, outcome: Outcome) -> Outcome:
        """Add the stored text of a failed stream to its outcome, when it is too large to be in it already."""
        if outcome["error_code"] is None or not outcome["chunks"] or self.text is not None:
            return outcome
        try:
            text = await self.finish()
        except CallError:
            return outcome  # the failure counts; its text is only additional information
        return {**outcome, "body_ref": text.data_ref, "content_type": EVENT_STREAM}

    def discard(self) -> None:
        """Discard the text, unless it is finished."""
        self._spool.discard()

    @property
    def usage(self) -> Usage | None:
        """Return the token counts of the last frame that had any."""
        return usage_of(self._with_usage)

    async def forward_stream(self, pieces: AsyncIterator[bytes]) -> None:
        """Forward the stream to its end; raises CallError when it was incomplete or contained an error."""
        try:
            await self._forward_all(pieces)
            self._forward(self._parser.close())
        finally:
            await self._writer.flush()
        if not self._parser.done and not self._finished:
            raise CallError(Failure.CUT, "the stream ended without its end mark")
        if not self._writer.frames:
            raise CallError(Failure.EMPTY)

    async def _forward_all(self, pieces: AsyncIterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as timeout:
                async for data in pieces:
                    await self._receive(data)
                    if self._parser.done and timeout.when() is None:
                        timeout.reschedule(loop.time() + LINGER_S)
        except TimeoutError:
            if not timeout.expired():
                raise

    async def _receive(self, data: bytes) -> None:
        if self._spool.size + len(data) > self._limit:
            raise CallError(Failure.TOO_LARGE, f"more than {self._limit} bytes")
        await self._store(data)
        self._forward(self._parser.feed(data))

    async def _store(self, data: bytes) -> None:
        try:
            await self._spool.write(data)
        except Unavailable as error:
            raise CallError(Failure.STORAGE, error.message) from error

    def _forward(self, frames: list[bytes]) -> None:
        for number, frame in enumerate(frames):
            if (error := reported_in_frame(frame)) is not None:
                # An error instead of text is not forwarded: the call may be retried. After some text it is final.
                if number or self._writer.frames:
                    self._writer.add(frames[: number + 1])
                raise CallError(Failure.REPORTED, error.reason, report=Report(error.status, lenient_json.strict(frame)))
            mended = lenient_json.strict(frame, keep_halves=True)
            if mended is None:
                self._writer.add(frames[:number])
                raise CallError(Failure.NO_JSON)
            if mended is not frame:
                frames[number] = Payload.named(mended, event_of(frame))
            if _USAGE.search(frame):
                self._with_usage = frame
            if not self._finished and _FINISHED.search(frame):
                self._finished = True
        self._writer.add(frames)
