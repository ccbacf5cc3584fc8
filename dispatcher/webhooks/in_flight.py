"""Deliveries in flight: a bounded number, which is drained when the partitions are revoked.

A delivery that only waits, for its time or for a slot, is cancelled then: the next owner of its partition makes the
attempt. A running attempt is finished, because the receiver may have it already.
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
"""The other members of the group wait while this one finishes its attempts; a longer attempt is made twice."""


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
    """The tasks of one consumer; `on_crash` is awaited with the record when a task ends with an unexpected error."""

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
        """Wait until records may be received, or `stop`; return how many, at least one."""
        while len(self._tasks) >= self._max_records or self._bytes > self._max_bytes:
            if self._stopped:
                break
            self._freed.clear()
            await self._freed.wait()
        return max(1, self._max_records - len(self._tasks))

    def start(
        self, received: ReceivedRecord, delivery: Delivery, work: Coroutine[Any, Any, None], *, size: int
    ) -> None:
        """Start the work of a record; the record is completed when the work has ended."""
        task = asyncio.create_task(self._run(received, work), name=f"delivery-{delivery['id']}")
        self._tasks[task] = _InFlight(size, delivery["created_ms"])
        self._bytes += size
        task.add_done_callback(self._done)

    def oldest_ms(self) -> int | None:
        """Return when the oldest delivery in flight was created."""
        return min((held.since_ms for held in self._tasks.values()), default=None)

    def stop(self) -> None:
        """End the wait for capacity."""
        self._stopped = True
        self._freed.set()

    async def drain(self, seconds: float = DRAIN_S) -> None:
        """Cancel waiting tasks and wait for the others; tasks that are not finished in time are cancelled too."""
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
        except Exception as error:  # whatever the error is, one delivery must not block its partition for ever
            log.exception("a webhook delivery failed unexpectedly", extra={"event": "webhook_delivery_crashed"})
            await self._on_crash(received, f"unexpected error: {str(error) or type(error).__name__}")
        received.tracker.completed(received.record.offset)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._bytes -= self._tasks.pop(task).size
        self._freed.set()
