"""An index of the waiting tasks of pull queues: one scan over the rows of a queue, then every new row."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field

from core.kafka.topic_follower import Records
from ingress.pull.queue import PullQueue, QueueLevel
from ingress.read_model.queue_scan import QueueScan, pages_of, row_prefix
from ingress.read_model.task_view import TaskView
from schemas.codec import STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.records import Status

log = logging.getLogger(__name__)


@dataclass(slots=True)
class IndexedQueue:
    """A queue and level, and the progress of its first scan."""

    name: QueueLevel
    scan: QueueScan
    """The first scan over its rows."""
    queue: PullQueue = field(default_factory=PullQueue)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the take that hands out the only task of the queue, in the strategy sequential."""
    spread: int = 1
    """A take selects at random among this many times the wanted tasks; larger while other ingresses take too."""
    scanning: asyncio.Task[None] | None = None

    def if_same_queue(self, row: Status | None) -> Status | None:
        """Return a row of this queue, None for another's: two names may share the number in the key prefix."""
        return row if row is not None and row["queue"] == self.name.queue else None

    async def counted(self, seconds: float) -> bool:
        """Wait until every row has been read; False on a time-out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.scan.complete.wait()
        return self.scan.complete.is_set()


class PullIndex:
    """The indexed queues of one view."""

    def __init__(self, view: TaskView) -> None:
        self._view = view
        self._indexed: dict[QueueLevel, IndexedQueue] = {}
        self._by_number: dict[tuple[bytes, bytes], list[IndexedQueue]] = {}
        view.watchers.append(self._follow)

    def watch(self, name: QueueLevel) -> IndexedQueue:
        """Return a queue and level; the first call starts the scan over its rows."""
        watched = self._indexed.get(name)
        if watched is None:
            watched = self._indexed[name] = IndexedQueue(name, QueueScan(self._view, name.queue, name.level))
            _, number, level, _ = row_prefix(name.queue, name.level).split(b"-", 3)
            self._by_number.setdefault((number, level), []).append(watched)
            watched.scanning = asyncio.create_task(self._scan(watched), name=f"scan-{name}")
        elif watched.queue.is_exhausted and watched.scanning is not None and watched.scanning.done():
            watched.scanning = asyncio.create_task(self._refill(watched), name=f"refill-{name}")
        return watched

    async def _scan(self, watched: IndexedQueue) -> None:
        """Add every row that no batch of new records has contained."""

        def add(_: bytes, value: bytes) -> None:
            if (row := watched.if_same_queue(_row(value))) is not None:
                watched.queue.change(None, row)

        await watched.scan.run(add)
        log.info(
            "indexed pull queue %s", watched.name, extra={"event": "pull_queue_indexed", "queue": watched.name.queue}
        )

    async def _refill(self, watched: IndexedQueue) -> None:
        """Find the waiting tasks that were dropped because there were too many."""
        watched.queue.restart()
        async for page in pages_of(self._view, row_prefix(watched.name.queue, watched.name.level)):
            for _, value in page:
                if state_of(value) == "queued":
                    watched.queue.observe(watched.if_same_queue(_row(value)))

    def _follow(self, records: Records) -> None:
        """Apply a batch of records that the view is about to write."""
        if not self._indexed:
            return
        after_of: dict[bytes, Status | None] = {}
        for record in records:
            parts = (record.key or b"").split(b"-", 3)
            for watched in self._by_number.get((parts[1], parts[2]), ()) if len(parts) == 4 else ():
                key = record.key or b""
                before = after_of[key] if key in after_of else self._before(key)
                after_of[key] = after = None if record.value is None else _row(record.value)
                self._change(watched, key, before, after)

    def _before(self, key: bytes) -> Status | None:
        try:
            return self._view.get(key)
        except (FramingError, SchemaError):
            return None

    def _change(self, watched: IndexedQueue, key: bytes, before: Status | None, after: Status | None) -> None:
        if watched.scan.is_ahead(key):
            before = None
        watched.queue.change(watched.if_same_queue(before), watched.if_same_queue(after))


def _row(value: bytes) -> Status | None:
    try:
        return STATUS.decode(value)
    except (FramingError, SchemaError):
        return None  # a record of another producer must not stop the process
