"""The event streams of one process: one feed for each task that is viewed, shared by all its viewers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from enum import Enum

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from ingress.http import sse
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from ingress.task_events import frames
from ingress.task_events.feed import TaskEventFeed
from ingress.task_events.frames import EventOutcome, OutcomeReader
from ingress.task_events.log_reader import ChunkLog, ChunkReplayer
from ingress.task_events.transcript import EventPosition, Transcript
from ingress.waiting.streaming import StreamError
from ingress.waiting.waiters import Waiters
from schemas import topics


class ViewerExit(Enum):
    """How a viewer ended."""

    COMPLETED = "200"
    GONE = "gone"
    SHUTDOWN = "shutdown"
    BROKEN = "broken"


class Viewer:
    """One client of a task's events. It holds its position; the feed buffers nothing for a slow client."""

    def __init__(self, feed: TaskEventFeed, position: EventPosition) -> None:
        self._feed = feed
        self._tag = position.tag
        self._frame = position.frames
        self._log_exhausted = False
        self._changed = asyncio.Event()
        self.left: ViewerExit | None = None

    def on_gone(self) -> None:
        """End, because the client disconnected."""
        self.left = self.left or ViewerExit.GONE
        self._changed.set()

    async def follow(self, *, silence_s: float) -> AsyncGenerator[bytes]:
        """Yield frames as they arrive, and a keep-alive after each idle period; `left` is the reason for the end."""
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
                    yield frames.failure_frame(frames.SHUTDOWN if feed.closing else frames.BROKEN)
                elif notes < len(feed.notes):
                    notes, new = len(feed.notes), feed.notes[notes:]
                    yield b"".join(new)
                elif text := await self._frames():
                    yield text
                elif feed.ended is not None:
                    self.left = ViewerExit.COMPLETED
                    yield self._last_words(feed.ended)
                elif not await self._woken(silence_s):
                    yield frames.KEEP_ALIVE
        finally:
            feed.forget(self._changed)

    async def _frames(self) -> bytes:
        """Return the next frames; empty when there are none yet."""
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
        """Return whether the frames belong to the client's run. If not, wait: the result may still name that run."""
        return transcript.run is not None and self._tag in (None, transcript.run.tag)

    def _last_words(self, outcome: EventOutcome) -> bytes:
        failure = outcome.failure or self._lacking()
        words = frames.status_of(outcome.row)
        if failure is not None and not self._error_sent():
            words += frames.failure_frame(failure)
        return words + frames.DONE

    def _lacking(self) -> StreamError | None:
        """Return why a completed text is incomplete for this client; None when it is complete."""
        transcript = self._feed.transcript
        if self._tag is not None and not self._reads(transcript):
            return frames.INTERRUPTED
        if self._frame > transcript.end:
            return frames.INTERRUPTED
        return None if transcript.whole and self._frame == transcript.end else frames.LOST

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


FULL_RETRY_S = 5


class SharedFeed:
    """A feed, its subscriptions, and the number of its viewers."""

    def __init__(self, view: TaskView, waiters: Waiters, feed: TaskEventFeed) -> None:
        self.feed = feed
        self.viewers = 0
        self._subscriptions = ExitStack()
        with ExitStack() as subscriptions:
            subscriptions.enter_context(view.watch(feed.key, feed.on_row))
            subscriptions.enter_context(waiters.observed(feed.key, feed))
            self._subscriptions = subscriptions.pop_all()
        self._running = asyncio.create_task(feed.run(), name=f"events-{feed.key.decode()}")

    def close(self) -> None:
        """Stop at once: another feed of the task may start immediately."""
        self._subscriptions.close()
        self._running.cancel()


class TaskEvents:
    """Hands out the shared feed of a task to each viewer."""

    def __init__(
        self, settings: Settings, *, view: TaskView, waiters: Waiters, log_reader: LogReader, blobs: BlobStore
    ) -> None:
        self._view = view
        self._waiters = waiters
        self._chunk_log = ChunkLog(settings.topic(topics.CHUNKS), log_reader, waiters.tail, ChunkReplayer(log_reader))
        self._outcomes = OutcomeReader(settings, log_reader=log_reader, blobs=blobs)
        self._limit = settings.ingress.max_blocking_requests
        self._shared: dict[str, SharedFeed] = {}
        self._viewers = 0

    @asynccontextmanager
    async def subscribe(self, reading: TaskSnapshot) -> AsyncIterator[TaskEventFeed]:
        """Yield the feed of a task while the block runs; raises Unavailable when the process is full or stops."""
        if self._viewers >= self._limit:
            raise Unavailable(f"{self._limit} event streams are open already; try again", retry_after_s=FULL_RETRY_S)
        shared = self._shared.get(reading.id) or self._open(reading)
        self._viewers += 1
        shared.viewers += 1
        try:
            yield shared.feed
        finally:
            self._viewers -= 1
            shared.viewers -= 1
            if not shared.viewers:
                del self._shared[reading.id]
                shared.close()

    def _open(self, reading: TaskSnapshot) -> SharedFeed:
        row = self._view.get(reading.id.encode())
        shared = SharedFeed(self._view, self._waiters, TaskEventFeed(self._chunk_log, self._outcomes, reading, row))
        self._shared[reading.id] = shared
        return shared
