"""The deliveries that a process has in hand: bounded, and given up in order when their partitions go to another.

A delivery that only waits, for its time or for its host's turn, is dropped at once then: whoever reads its record next
makes the attempt. One whose attempt is under way is finished, because the receiver may have it already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Self

from dispatcher.group_consumer import ReceivedRecord
from schemas.records import Delivery

log = logging.getLogger(__name__)

DRAIN_S = 4.0
"""The others of a group wait while this one finishes its attempts; an attempt that takes longer is made twice."""


class WaitingTasks:
    """The tasks that wait for something other than the end of an attempt, each in a `with` block of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any] | None] = set()

    def __enter__(self) -> Self:
        self._tasks.add(asyncio.current_task())
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.discard(asyncio.current_task())

    def __contains__(self, task: asyncio.Task[None]) -> bool:
        return task in self._tasks


class _InFlight(NamedTuple):
    size: int
    since_ms: int


class InFlightDeliveries:
    """Tasks of one reader; `on_crash` is awaited with what was taken when a task ends by an unexpected error."""

    def __init__(
        self,
        max_records: int,
        max_bytes: int,
        *,
        waiting_tasks: WaitingTasks,
        on_crash: Callable[[ReceivedRecord, str], Awaitable[None]],
    ) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._waiting_tasks = waiting_tasks
        self._on_crash = on_crash
        self._tasks: dict[asyncio.Task[None], _InFlight] = {}
        self._bytes = 0
        self._freed = asyncio.Event()
        self._stopped = False

    def __len__(self) -> int:
        return len(self._tasks)

    async def wait_for_capacity(self) -> int:
        """Return how many records may be taken, at least one; waits until that is so, or until `stop`."""
        while len(self._tasks) >= self._max_records or self._bytes > self._max_bytes:
            if self._stopped:
                break
            self._freed.clear()
            await self._freed.wait()
        return max(1, self._max_records - len(self._tasks))

    def start(
        self, received: ReceivedRecord, delivery: Delivery, work: Coroutine[Any, Any, None], *, size: int
    ) -> None:
        """Run the work of a record; its claim is settled when that has ended well."""
        task = asyncio.create_task(self._run(received, work), name=f"callback-{delivery['id']}")
        self._tasks[task] = _InFlight(size, delivery["created_ms"])
        self._bytes += size
        task.add_done_callback(self._done)

    def oldest_ms(self) -> int | None:
        """Return when the oldest delivery in hand began."""
        return min((held.since_ms for held in self._tasks.values()), default=None)

    def stop(self) -> None:
        """Let whoever waits for room go on."""
        self._stopped = True
        self._freed.set()

    async def drain(self, seconds: float = DRAIN_S) -> None:
        """Drop what only waits, and wait for the rest; what is not over in time is dropped too."""
        mine = set(self._tasks)
        for task in mine:
            if task in self._waiting_tasks:
                task.cancel()
        if mine:
            _, late = await asyncio.wait(mine, timeout=max(0.0, seconds))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, received: ReceivedRecord, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # whatever it is, one delivery must not hold its partition for ever
            log.exception("a callback failed unexpectedly", extra={"event": "callback_crashed"})
            await self._on_crash(received, f"unexpected error: {str(error) or type(error).__name__}")
        received.tracker.completed(received.record.offset)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._bytes -= self._tasks.pop(task).size
        self._freed.set()
