"""The lanes that somebody asked for, kept true to the read model: one walk over a lane's rows, then each new row."""

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
    """A lane and how far its first walk is."""

    name: QueueLevel
    lane: PullQueue = field(default_factory=PullQueue)
    whole: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every row has been seen."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the take that hands out the lane's only task, in the strategy that hands out one at a time."""
    spread: int = 1
    """Among how many times the wanted number a take chooses: more while other ingresses take from the lane, too."""
    cursor: bytes = b""
    touched: set[bytes] = field(default_factory=set)
    walking: asyncio.Task[None] | None = None

    def if_same_queue(self, row: Status | None) -> Status | None:
        """Return a row of this queue, None for another's: two names may share the number that keys begin with."""
        return row if row is not None and row["queue"] == self.name.queue else None

    async def counted(self, seconds: float) -> bool:
        """Wait until every row has been seen; False when that takes longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.whole.wait()
        return self.whole.is_set()

    @property
    def prefix(self) -> bytes:
        """Return what the keys of its rows begin with."""
        return f"TASK-{queue_number(self.name.queue)}-{self.name.level}-".encode()


class PullIndex:
    """Watched lanes of one view, which must be told of every batch of rows before the view writes it."""

    def __init__(self, view: TaskView) -> None:
        self._view = view
        self._lanes: dict[QueueLevel, IndexedQueue] = {}
        self._by_number: dict[tuple[bytes, bytes], list[IndexedQueue]] = {}
        view.watchers.append(self._follow)

    def watch(self, name: QueueLevel) -> IndexedQueue:
        """Return a lane; the first call begins to walk over its rows."""
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
        """Fold every row that no batch has told of."""
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
        """Find the waiting tasks that were forgotten because there were too many."""
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
        """Take a batch that the view is about to write."""
        if not self._lanes:
            return
        told: dict[bytes, Status | None] = {}
        for record in records:
            parts = (record.key or b"").split(b"-", 3)
            for watched in self._by_number.get((parts[1], parts[2]), ()) if len(parts) == 4 else ():
                key = record.key or b""
                before = told[key] if key in told else self._before(key)
                told[key] = after = None if record.value is None else _row(record.value)
                self._change(watched, key, before, after)

    def _before(self, key: bytes) -> Status | None:
        try:
            return self._view.get(key)
        except (FramingError, SchemaError):
            return None

    def _change(self, watched: IndexedQueue, key: bytes, before: Status | None, after: Status | None) -> None:
        if not watched.whole.is_set():
            if key not in watched.touched and key > watched.cursor:
                before = None  # the walk has not counted it yet, and will pass it over
            watched.touched.add(key)
        watched.lane.change(watched.if_same_queue(before), watched.if_same_queue(after))


def _row(value: bytes) -> Status | None:
    try:
        return STATUS.decode(value)
    except (FramingError, SchemaError):
        return None  # only schedulers write rows; a stray record must not stop the process
