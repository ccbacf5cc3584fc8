"""The feeds of this process: one for each task that somebody looks at, however many look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from core.errors import Unavailable
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.runtime import Services
from ingress.task_events.chunk_replay import ChunkReplayer
from ingress.task_events.feed import TaskEventFeed

FULL_RETRY_S = 5


class SharedFeed:
    """A feed, what it is told by, and how many share it."""

    def __init__(self, services: Services, feed: TaskEventFeed) -> None:
        self.feed = feed
        self.viewers = 0
        self._told = ExitStack()
        with ExitStack() as told:
            told.enter_context(services.view.watched(feed.key, feed.on_row))
            told.enter_context(services.waiters.followed(feed.key, feed))
            self._told = told.pop_all()
        self._running = asyncio.create_task(feed.run(), name=f"events-{feed.key.decode()}")

    def close(self) -> None:
        """Stop at once: another feed of the task may follow in the same moment."""
        self._told.close()
        self._running.cancel()


class TaskEvents:
    """Gives each viewer the feed of its task."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replays = ChunkReplayer(lambda: services.lookup)
        self._shared: dict[str, SharedFeed] = {}
        self._viewers = 0

    @asynccontextmanager
    async def joined(self, reading: TaskSnapshot) -> AsyncIterator[TaskEventFeed]:
        """Give the feed of a task as long as the block lasts; raises Unavailable when the process is full or ends."""
        most = self._services.settings.ingress.max_blocking_requests
        if self._viewers >= most:
            raise Unavailable(f"{most} event streams are open already; try again", retry_after_s=FULL_RETRY_S)
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
        row = self._services.view.get(reading.id.encode())
        shared = SharedFeed(self._services, TaskEventFeed(self._services, self._replays, reading, row))
        self._shared[reading.id] = shared
        return shared
