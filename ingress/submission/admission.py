"""Admission control: refuse tasks of full queues. Depth is counted from the read model, for queues with a limit only.

Every ingress reads the rows of all tasks, so it knows the depth whichever API or process accepted them, and also after
a restart; its own tasks count from the moment they are accepted. A task that another ingress accepted counts once its
row is read, some hundredths of a second later. Rows of a queue are found by the queue number in the key prefix: two
queues with one number, which is practically impossible, would be counted together.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from core.clock import epoch_ms
from core.drain_rate import Backlog, limit_of, retry_after_s
from core.errors import RateLimited, Unavailable
from core.kafka.topic_follower import Records
from core.settings.models import Settings
from ingress.read_model.queue_scan import QueueScan, row_prefix
from ingress.read_model.task_view import TaskView
from ingress.submission.queue_depth import QueueDepth
from schemas.codec import state_of
from schemas.idempotency import key_id
from schemas.records import Queue, State, Task
from schemas.topics import level_name

COUNT_TIMEOUT_S = 5.0
POLL_S = 0.05


@dataclass(slots=True)
class TrackedQueue:
    """A queue and level, and the progress of the scan over its rows."""

    queue: str
    level: int
    scan: QueueScan
    count: QueueDepth = field(default_factory=QueueDepth)
    scanning: asyncio.Task[None] | None = None

    @property
    def counted(self) -> bool:
        """Return whether the scan has counted every row."""
        return self.scan.complete.is_set()


class QueueAdmission:
    """Counts the waiting tasks of queues with a limit."""

    def __init__(
        self,
        settings: Settings,
        *,
        view: TaskView,
        queue: Callable[[str], Queue | None],
        on_refused: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count by `view`; `queue_registered` must then be called for every queue. `on_refused` gets the level."""
        self._settings = settings
        self._queue = queue
        self._on_refused = on_refused
        self._clock = clock
        self._view = view
        self._tracked: dict[bytes, TrackedQueue] = {}
        view.watchers.append(self._follow)

    def close(self) -> None:
        """Stop running scans."""
        for watched in self._tracked.values():
            if watched.scanning is not None:
                watched.scanning.cancel()

    def queue_registered(self, queue: Queue) -> None:
        """Start counting a queue that has a limit, before its first task arrives; stop when its limit is removed."""
        limited = limit_of(self._settings, queue["name"], queue) > 0
        for level in (0, 1):
            if limited:
                self._watch(queue["name"], level)
                continue
            watched = self._tracked.pop(row_prefix(queue["name"], level), None)
            if watched is not None and watched.scanning is not None:
                watched.scanning.cancel()

    async def admit(self, task: Task, *, owner: str) -> None:
        """Return when the queue has room for a task; raises RateLimited, and Unavailable while counting rows."""
        name, level = task["queue"], task["level"]
        limit = limit_of(self._settings, name, self._queue(name))
        if not limit:
            return
        watched = self._watch(name, level)
        if not (watched.counted and self._view.caught_up):
            await self._wait_until_counted(watched)
        waiting = watched.count.total()
        if waiting < limit or self._is_duplicate(task, owner):
            return
        wait_s = retry_after_s(waiting, limit, watched.count.drain.rate(now_s=self._clock()))
        self._on_refused(level)
        raise RateLimited(
            f"queue {name} is full: {waiting} {level_name(level)} tasks wait, and its limit is {limit}; nothing was "
            f"accepted, try again in {math.ceil(wait_s)} s",
            retry_after_s=wait_s,
        )

    def reserve(self, key: bytes) -> None:
        """Count a task that is about to be written, until its row is read."""
        if self._tracked and (watched := self._tracked.get(_prefix_of(key))):
            watched.count.reserve(key, now_s=self._clock())

    def rollback(self, key: bytes) -> None:
        """Remove a task whose write failed; if it was written after all, its row counts it."""
        if self._tracked and (watched := self._tracked.get(_prefix_of(key))):
            watched.count.rollback(key, now_s=self._clock())

    def all(self) -> list[Backlog]:
        """List the depth of every queue and level with a limit that has been counted."""
        counted = [(one.queue, one.level, one.count.total()) for one in self._tracked.values() if one.counted]
        return [Backlog(*one, limit_of(self._settings, one[0], self._queue(one[0]))) for one in counted]

    def _watch(self, name: str, level: int) -> TrackedQueue:
        prefix = row_prefix(name, level)
        watched = self._tracked.get(prefix)
        if watched is None:
            watched = self._tracked[prefix] = TrackedQueue(name, level, QueueScan(self._view, name, level))
            watched.scanning = asyncio.create_task(self._scan(watched), name=f"count-{name}-{level}")
        return watched

    async def _wait_until_counted(self, watched: TrackedQueue) -> None:
        """Wait until every row has been counted; raises Unavailable when that takes long."""
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                while True:
                    if watched.counted and self._view.caught_up:
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(
                f"the waiting tasks of queue {watched.queue} are still being counted; nothing was accepted, try "
                "again in some seconds"
            ) from None

    def _is_duplicate(self, task: Task, owner: str) -> bool:
        """Return whether the idempotency key is in use: a duplicate adds no task, and its client expects the result."""
        key = task["idempotency_key"]
        row = None if key is None else self._view.get(key_id(task["queue"], owner, key).encode())
        return row is not None and row["deadline_ms"] > epoch_ms()

    async def _scan(self, watched: TrackedQueue) -> None:
        """Count every row that no batch of new records has contained."""

        def count(_: bytes, value: bytes) -> None:
            watched.count.queued += state_of(value) == "queued"

        await watched.scan.run(count)

    def _follow(self, records: Records) -> None:
        """Apply a batch of records that the view is about to write."""
        if not self._tracked:
            return
        now_s, view, present = self._clock(), self._view, self._view.caught_up
        after_of: dict[bytes, State | None] = {}
        for record in records:
            key = record.key or b""
            watched = self._tracked.get(_prefix_of(key))
            if watched is None:
                continue
            before = after_of[key] if key in after_of else view.state(key)
            after_of[key] = after = None if record.value is None else state_of(record.value)
            if watched.scan.is_ahead(key):
                before = None
            watched.count.change(key, before, after, now_s=now_s, timed=watched.counted and present)


def _prefix_of(key: bytes) -> bytes:
    """Return the prefix of a row key that names queue and level; other keys give a prefix that is in no index."""
    return key[: key.find(b"-", key.find(b"-", 5) + 1) + 1]
