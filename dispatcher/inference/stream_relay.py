"""One streamed answer on its way from the upstream to the chunk records."""

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
"""After [DONE] the end of the answer is awaited this long, so that the connection can be used again."""
_FINISHED = re.compile(
    rb'"finish_reason"\s*:\s*"|"type"\s*:\s*"(?:transcript\.text\.done|image_(?:generation|edit)\.completed)"'
)
"""What stands in the last frame of a text; streams of speech and of images may end with it and without [DONE]."""
_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class Relay:
    """Pass frames on and keep the whole text, for those who read the result later."""

    def __init__(self, writer: ChunkWriter, spool: Spool, *, limit_bytes: int) -> None:
        """`spool` takes the text."""
        self._writer = writer
        self._spool = spool
        self._limit = limit_bytes
        self._parser = SseParser()
        self._finished = False
        self._with_usage: bytes | None = None

    @property
    def chunks(self) -> int:
        """Return how many chunk records there are."""
        return self._writer.count

    @property
    def first_token_ms(self) -> int | None:
        """Return when the first frame came."""
        return self._writer.first_ms

    def started(self) -> bool:
        """Tell whether a token has been delivered, so that the attempt must not be repeated."""
        return self._writer.count > 0

    @property
    def text(self) -> bytes | None:
        """Return the stream as it came, unless it is too large for a record."""
        return self._spool.text

    async def finish(self) -> Spooled:
        """Return where the whole text is; raises CallError when the store does not take it."""
        try:
            return await self._spool.finish()
        except Unavailable as error:
            raise CallError(Failure.STORAGE, error.message) from error

    def delivered(self, outcome: Outcome) -> Outcome:
        """Add to the outcome of a failure what of the stream had been delivered by then."""
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
        """Add what of a failed stream had come to its outcome, when it is too large to be there already."""
        if outcome["error_code"] is None or not outcome["chunks"] or self.text is not None:
            return outcome
        try:
            text = await self.finish()
        except CallError:
            return outcome  # the failure counts, and its text is for those who are curious
        return {**outcome, "body_ref": text.data_ref, "content_type": EVENT_STREAM}

    def discard(self) -> None:
        """Forget the text, unless it is finished."""
        self._spool.discard()

    @property
    def usage(self) -> Usage | None:
        """Return the token counts of the last frame that had any."""
        return usage_of(self._with_usage)

    async def forward_stream(self, pieces: AsyncIterator[bytes]) -> None:
        """Relay until the stream ends; a stream that was not complete, or held an error, raises CallError."""
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
                # An error in place of the text is kept back: the call may be made again. After some text it is the end.
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
