"""Refuse tasks of queues in which enough wait: counted from the read model, for queues that have a limit and no others.

Every ingress folds the rows of all tasks, so it knows what waits whichever door it came by, and also after a restart;
what it accepted itself counts from that moment on. What another ingress accepted is known once its row is there, some
hundredths of a second later. A queue's rows are found by the number that their keys begin with: two queues of one
number, which is as good as impossible, would be counted together.
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
from ingress.read_model.task_view import TaskView
from ingress.submission.queue_depth import QueueDepth
from schemas.codec import state_of
from schemas.idempotency import key_id
from schemas.partitioning import queue_number
from schemas.records import Queue, State, Task
from schemas.topics import level_name

ROWS_PER_STEP = 1_000
"""Rows walked before others get a turn: about 2 ms."""
COUNT_TIMEOUT_S = 5.0
POLL_S = 0.05


@dataclass(slots=True)
class TrackedQueue:
    """A lane and how far the walk over its rows is."""

    queue: str
    level: int
    count: QueueDepth = field(default_factory=QueueDepth)
    whole: bool = False
    """Whether every row has been counted."""
    cursor: bytes = b""
    touched: set[bytes] = field(default_factory=set)
    walking: asyncio.Task[None] | None = None


class QueueAdmission:
    """The limited queues of one ingress; without one it does nothing, and costs nothing."""

    def __init__(
        self,
        settings: Settings,
        *,
        view: TaskView,
        queue: Callable[[str], Queue | None],
        on_refused: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count by `view`; `notice` must then be called for every queue. `on_refused` is called with the level."""
        self._settings = settings
        self._queue = queue
        self._on_refused = on_refused
        self._clock = clock
        self._view = view
        self._lanes: dict[bytes, TrackedQueue] = {}
        view.watchers.append(self._follow)

    def close(self) -> None:
        """End what is being walked."""
        for watched in self._lanes.values():
            if watched.walking is not None:
                watched.walking.cancel()

    def queue_registered(self, queue: Queue) -> None:
        """Begin to count a queue that has a limit, before its first task comes; end it when it has none any more."""
        limited = limit_of(self._settings, queue["name"], queue) > 0
        for level in (0, 1):
            if limited:
                self._watch(queue["name"], level)
            elif (watched := self._lanes.pop(_prefix(queue["name"], level), None)) and watched.walking is not None:
                watched.walking.cancel()

    async def admit(self, task: Task, *, owner: str) -> None:
        """Return when there is room for a task; raises RateLimited, and Unavailable while rows are counted."""
        name, level = task["queue"], task["level"]
        limit = limit_of(self._settings, name, self._queue(name))
        if not limit:
            return
        watched = self._watch(name, level)
        if not (watched.whole and self._view.caught_up):
            await self._counted(watched)
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
        """Count a task that is about to be written, until its row tells where it stands."""
        if self._lanes and (watched := self._lanes.get(_lane_of(key))):
            watched.count.reserve(key, now_s=self._clock())

    def rollback(self, key: bytes) -> None:
        """Take back a task whose write failed; should it be there all the same, its row will tell."""
        if self._lanes and (watched := self._lanes.get(_lane_of(key))):
            watched.count.rollback(key, now_s=self._clock())

    def all(self) -> list[Backlog]:
        """List what waits where there is a limit, as far as it has been counted."""
        counted = [(one.queue, one.level, one.count.total()) for one in self._lanes.values() if one.whole]
        return [Backlog(*told, limit_of(self._settings, told[0], self._queue(told[0]))) for told in counted]

    def _watch(self, name: str, level: int) -> TrackedQueue:
        prefix = _prefix(name, level)
        watched = self._lanes.get(prefix)
        if watched is None:
            watched = self._lanes[prefix] = TrackedQueue(name, level)
            watched.walking = asyncio.create_task(self._walk(watched), name=f"count-{name}-{level}")
        return watched

    async def _counted(self, watched: TrackedQueue) -> None:
        """Wait until every row has been counted; raises Unavailable when that takes long."""
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                while True:
                    if watched.whole and self._view.caught_up:
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(
                f"the tasks that wait in queue {watched.queue} are still being counted; nothing was accepted, try "
                "again in some seconds"
            ) from None

    def _is_duplicate(self, task: Task, owner: str) -> bool:
        """Tell whether a task is known by its key: then it adds nothing, and its client wants the outcome."""
        key = task["idempotency_key"]
        row = None if key is None else self._view.get(key_id(task["queue"], owner, key).encode())
        return row is not None and row["deadline_ms"] > epoch_ms()

    async def _walk(self, watched: TrackedQueue) -> None:
        """Count every row that no batch has told of."""
        begin = _prefix(watched.queue, watched.level) + b"-"
        end = begin + b"\xff"
        while page := self._view.scan(begin, end, limit=ROWS_PER_STEP):
            watched.count.queued += sum(
                1 for key, value in page if _state(value) == "queued" and key not in watched.touched
            )
            watched.cursor = page[-1][0]
            begin = watched.cursor + b"\x00"
            await asyncio.sleep(0)
        watched.touched.clear()
        watched.whole = True

    def _follow(self, records: Records) -> None:
        """Take a batch that the view is about to write."""
        if not self._lanes:
            return
        now_s, view, present = self._clock(), self._view, self._view.caught_up
        told: dict[bytes, State | None] = {}
        for record in records:
            key = record.key or b""
            watched = self._lanes.get(_lane_of(key))
            if watched is None:
                continue
            before = told[key] if key in told else view.state(key)
            told[key] = after = None if record.value is None else _state(record.value)
            if not watched.whole:
                if key not in watched.touched and key > watched.cursor:
                    before = None  # the walk has not counted it yet, and will pass it over
                watched.touched.add(key)
            watched.count.change(key, before, after, now_s=now_s, timed=watched.whole and present)


def _state(value: bytes) -> State | None:
    try:
        return state_of(value)
    except IndexError:
        return None  # only schedulers write rows; a stray record must not stop the process


def _prefix(name: str, level: int) -> bytes:
    return b"TASK-%d-%d" % (queue_number(name), level)


def _lane_of(key: bytes) -> bytes:
    """Return what keys of one queue and level begin with; of any other key something that no lane is found by."""
    return key[: key.find(b"-", key.find(b"-", 5) + 1)]
