"""An index of the waiting tasks of pull queues: one scan over the rows of a queue, then every new row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from core.kafka.topic_follower import Records
from ingress.pull.queue import PullQueue, QueueLevel
from ingress.read_model.task_view import TaskView
from schemas.codec import STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.partitioning import queue_number
from schemas.records import Status

log = logging.getLogger(__name__)

ROWS_PER_STEP = 500
"""Rows walked before others get a turn: about 5 ms."""


@dataclass(slots=True)
class IndexedQueue:
    """A queue and level, and the progress of its first scan."""

    name: QueueLevel
    lane: PullQueue = field(default_factory=PullQueue)
    whole: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every row has been read."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the take that hands out the only task of the queue, in the strategy sequential."""
    spread: int = 1
    """A take selects at random among this many times the wanted tasks; larger while other ingresses take too."""
    cursor: bytes = b""
    touched: set[bytes] = field(default_factory=set)
    walking: asyncio.Task[None] | None = None

    def if_same_queue(self, row: Status | None) -> Status | None:
        """Return a row of this queue, None for another's: two names may share the number in the key prefix."""
        return row if row is not None and row["queue"] == self.name.queue else None

    async def counted(self, seconds: float) -> bool:
        """Wait until every row has been read; False on a time-out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.whole.wait()
        return self.whole.is_set()

    @property
    def prefix(self) -> bytes:
        """Return the key prefix of its rows."""
        return f"TASK-{queue_number(self.name.queue)}-{self.name.level}-".encode()


class PullIndex:
    """The indexed queues of one view."""

    def __init__(self, view: TaskView) -> None:
        self._view = view
        self._lanes: dict[QueueLevel, IndexedQueue] = {}
        self._by_number: dict[tuple[bytes, bytes], list[IndexedQueue]] = {}
        view.watchers.append(self._follow)

    def watch(self, name: QueueLevel) -> IndexedQueue:
        """Return a queue and level; the first call starts the scan over its rows."""
        watched = self._lanes.get(name)
        if watched is None:
            watched = self._lanes[name] = IndexedQueue(name)
            _, number, level, _ = watched.prefix.split(b"-", 3)
            self._by_number.setdefault((number, level), []).append(watched)
            watched.walking = asyncio.create_task(self._walk(watched), name=f"walk-{name}")
        elif watched.lane.is_exhausted and watched.walking is not None and watched.walking.done():
            watched.walking = asyncio.create_task(self._refill(watched), name=f"refill-{name}")
        return watched

    async def _walk(self, watched: IndexedQueue) -> None:
        """Add every row that no batch of new records has contained."""
        async for key, value in self._rows(watched):
            if key not in watched.touched and (row := watched.if_same_queue(_row(value))) is not None:
                watched.lane.change(None, row)
            watched.cursor = key
        watched.touched.clear()
        watched.whole.set()
        log.info(
            "indexed pull queue %s", watched.name, extra={"event": "pull_queue_indexed", "queue": watched.name.queue}
        )

    async def _refill(self, watched: IndexedQueue) -> None:
        """Find the waiting tasks that were dropped because there were too many."""
        watched.lane.restart()
        async for _, value in self._rows(watched):
            if state_of(value) == "queued":
                watched.lane.observe(watched.if_same_queue(_row(value)))

    async def _rows(self, watched: IndexedQueue) -> AsyncIterator[tuple[bytes, bytes]]:
        begin, end = watched.prefix, watched.prefix + b"\xff"
        while page := self._view.scan(begin, end, limit=ROWS_PER_STEP):
            for key, value in page:
                yield key, value
            begin = page[-1][0] + b"\x00"
            await asyncio.sleep(0)

    def _follow(self, records: Records) -> None:
        """Apply a batch of records that the view is about to write."""
        if not self._lanes:
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
        if not watched.whole.is_set():
            if key not in watched.touched and key > watched.cursor:
                before = None  # the scan has not reached it, and will skip it
            watched.touched.add(key)
        watched.lane.change(watched.if_same_queue(before), watched.if_same_queue(after))


def _row(value: bytes) -> Status | None:
    try:
        return STATUS.decode(value)
    except (FramingError, SchemaError):
        return None  # a record of another producer must not stop the process
