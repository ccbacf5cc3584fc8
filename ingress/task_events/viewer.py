"""One client that looks at a task: it takes from the feed what it has not had yet, as fast as it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from enum import Enum

from ingress.http import sse
from ingress.task_events import serialization
from ingress.task_events.feed import TaskEventFeed
from ingress.task_events.outcome import EventOutcome
from ingress.task_events.position import EventPosition
from ingress.task_events.transcript import Transcript
from ingress.waiting.streaming import StreamError


class ViewerExit(Enum):
    """How the view of a task ended."""

    COMPLETED = "200"
    GONE = "gone"
    SHUTDOWN = "shutdown"
    BROKEN = "broken"


class Viewer:
    """Keeps its place; nothing is kept for it, so a slow one costs nobody anything."""

    def __init__(self, feed: TaskEventFeed, position: EventPosition) -> None:
        self._feed = feed
        self._tag = position.tag
        self._frame = position.frames
        self._log_exhausted = False
        self._changed = asyncio.Event()
        self.left: ViewerExit | None = None

    def on_gone(self) -> None:
        """End, for the client went away."""
        self.left = self.left or ViewerExit.GONE
        self._changed.set()

    async def follow(self, *, silence_s: float) -> AsyncGenerator[bytes]:
        """Yield frames as they come, and a keep-alive after each silence; `left` tells how it ended."""
        feed = self._feed
        feed.notify_on_change(self._changed)
        try:
            notes = len(feed.notes)
            if feed.now is not None:
                yield feed.now
            while self.left is None:
                self._changed.clear()
                if feed.closing or feed.broken:
                    self.left = ViewerExit.SHUTDOWN if feed.closing else ViewerExit.BROKEN
                    yield serialization.failure_frame(serialization.SHUTDOWN if feed.closing else serialization.BROKEN)
                elif notes < len(feed.notes):
                    notes, new = len(feed.notes), feed.notes[notes:]
                    yield b"".join(new)
                elif frames := await self._frames():
                    yield frames
                elif feed.ended is not None:
                    self.left = ViewerExit.COMPLETED
                    yield self._last_words(feed.ended)
                elif not await self._woken(silence_s):
                    yield serialization.KEEP_ALIVE
        finally:
            feed.forget(self._changed)

    async def _frames(self) -> bytes:
        """Return the frames that come next, if they are there."""
        transcript = self._feed.transcript
        run = transcript.run
        if run is None or not self._reads(transcript) or not (self._feed.ready or transcript.settled):
            return b""
        if self._frame >= transcript.first:
            taken = transcript.take(self._frame)
        elif self._log_exhausted:
            return b""
        else:
            payloads = await self._feed.reread(self._frame)
            if transcript.run != run:
                return b""
            self._log_exhausted = not payloads
            taken = transcript.render(self._frame, payloads)
        if taken.data:
            self._tag, self._frame = run.tag, taken.next
        return taken.data

    def _reads(self, transcript: Transcript) -> bool:
        """Tell whether the frames are those of the client's run. If not the outcome is awaited: it may judge so yet."""
        return transcript.run is not None and self._tag in (None, transcript.run.tag)

    def _last_words(self, outcome: EventOutcome) -> bytes:
        failure = outcome.failure or self._lacking()
        words = serialization.status_of(outcome.row)
        if failure is not None and not self._error_sent():
            words += serialization.failure_frame(failure)
        return words + serialization.DONE

    def _lacking(self) -> StreamError | None:
        """Say what keeps a completed text from being whole for this client."""
        transcript = self._feed.transcript
        if self._tag is not None and not self._reads(transcript):
            return serialization.INTERRUPTED
        if self._frame > transcript.end:
            return serialization.INTERRUPTED
        return None if transcript.whole and self._frame == transcript.end else serialization.LOST

    def _error_sent(self) -> bool:
        """Tell whether the upstream said the failure in the last frame."""
        transcript = self._feed.transcript
        return self._reads(transcript) and self._frame == transcript.end > 0 and sse.is_error(transcript.last)

    async def _woken(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True
