"""The feeds of this process: one for each task that somebody looks at, however many look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from ingress.task_events.chunk_replay import ChunkReplayer
from ingress.task_events.feed import TaskEventFeed
from ingress.task_events.log_reader import ChunkLog
from ingress.task_events.outcome import OutcomeReader
from ingress.waiting.waiters import Waiters
from schemas import topics

FULL_RETRY_S = 5


class SharedFeed:
    """A feed, what it is told by, and how many share it."""

    def __init__(self, view: TaskView, waiters: Waiters, feed: TaskEventFeed) -> None:
        self.feed = feed
        self.viewers = 0
        self._notified = ExitStack()
        with ExitStack() as told:
            told.enter_context(view.watch(feed.key, feed.on_row))
            told.enter_context(waiters.observed(feed.key, feed))
            self._notified = told.pop_all()
        self._running = asyncio.create_task(feed.run(), name=f"events-{feed.key.decode()}")

    def close(self) -> None:
        """Stop at once: another feed of the task may follow in the same moment."""
        self._notified.close()
        self._running.cancel()


class TaskEvents:
    """Gives each viewer the feed of its task."""

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
        """Give the feed of a task as long as the block lasts; raises Unavailable when the process is full or ends."""
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
