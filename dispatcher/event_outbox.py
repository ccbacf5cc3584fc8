"""Buffer of events: they are stored in order until Kafka acknowledges them, however long it is unavailable.

One write is in progress at a time, and later events go into the next write, so load makes writes larger and not more
frequent. A failed write is repeated as a whole: an event may then be in its topic twice, and the scheduler drops the
second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from core.clock import Deadline
from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from dispatcher import metrics
from dispatcher.task_supervisor import TaskSupervisor
from schemas.kafka_record import AddressedRecord

log = logging.getLogger(__name__)

MAX_BATCH_RECORDS = 1000
MAX_BATCH_BYTES = 8_388_608
MAX_PENDING_RECORDS = 2000
MAX_PENDING_BYTES = 33_554_432
"""Above this the intake pauses: outcomes that Kafka does not accept must not fill the memory."""
RETRY_DELAY_S = 0.2


class _PendingRecord:
    __slots__ = ("durable", "item", "size")

    def __init__(self, item: AddressedRecord, durable: asyncio.Future[None]) -> None:
        self.item = item
        self.durable = durable
        self.size = len(item.record.value or b"")


class EventOutbox:
    """Writes events; `on_capacity` is called whenever the buffer gains or loses capacity for new work."""

    def __init__(self, producer: Producer, *, on_capacity: Callable[[bool], None] = lambda _: None) -> None:
        self._producer = producer
        self._on_capacity = on_capacity
        self._pending: deque[_PendingRecord] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self, supervisor: TaskSupervisor) -> None:
        """Start writing."""
        self._task = supervisor.spawn(self._run(), name="outbox")

    async def close(self, deadline: Deadline) -> None:
        """Write the remaining events within the deadline, then stop; events that were not written are lost."""
        await self.drained(deadline)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._pending:
            log.error(
                "%d events were not written before the shutdown; other workers will run their tasks again",
                len(self._pending),
                extra={"event": "outbox_records_lost", "count": len(self._pending)},
            )

    @property
    def has_capacity(self) -> bool:
        """Return whether new work may be received."""
        return not self._failing and len(self._pending) < MAX_PENDING_RECORDS and self._bytes < MAX_PENDING_BYTES

    def enqueue(self, item: AddressedRecord) -> asyncio.Future[None]:
        """Enqueue an event; the future completes once it is durable."""
        pending = _PendingRecord(item, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._bytes += pending.size
        self._empty.clear()
        self._wake.set()
        self._notify_capacity()
        return pending.durable

    async def write_all(self, items: Iterable[AddressedRecord], deadline: Deadline | None = None) -> bool:
        """Enqueue events and wait until they are durable; at the deadline return False, and they stay enqueued."""
        futures = [self.enqueue(item) for item in items]
        if not futures:
            return True
        _, late = await asyncio.wait(futures, timeout=None if deadline is None else deadline.left())
        return not late

    async def caught_up(self, deadline: Deadline) -> None:
        """Wait until everything that is enqueued now is written."""
        if self._pending:
            await asyncio.wait({self._pending[-1].durable}, timeout=deadline.left())

    async def drained(self, deadline: Deadline) -> bool:
        """Wait until the buffer is empty; False at the deadline."""
        try:
            async with asyncio.timeout(deadline.left()):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._batch()
            try:
                await self._producer.send_batch(_packed(batch))
            except Unavailable:
                self._set_failing(True)
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            for pending in batch:
                self._pending.popleft()
                self._bytes -= pending.size
                if not pending.durable.done():
                    pending.durable.set_result(None)
            if not self._pending:
                self._wake.clear()
                self._empty.set()
            self._set_failing(False)

    def _batch(self) -> list[_PendingRecord]:
        batch: list[_PendingRecord] = []
        size = 0
        for pending in self._pending:
            if batch and (len(batch) == MAX_BATCH_RECORDS or size + pending.size > MAX_BATCH_BYTES):
                break
            batch.append(pending)
            size += pending.size
        return batch

    def _set_failing(self, failing: bool) -> None:
        if failing != self._failing:
            self._failing = failing
            if failing:
                log.warning(
                    "event writes are failing; %d events are buffered and the intake is paused",
                    len(self._pending),
                    extra={"event": "outbox_stalled", "count": len(self._pending)},
                )
            else:
                log.info("event writes succeed again", extra={"event": "outbox_recovered"})
        self._notify_capacity()

    def _notify_capacity(self) -> None:
        metrics.OUTBOX.set(len(self._pending))
        self._on_capacity(self.has_capacity)


def _packed(batch: Iterable[_PendingRecord]) -> dict[tuple[str, int], list[Record]]:
    packed: dict[tuple[str, int], list[Record]] = {}
    for pending in batch:
        topic, partition, record = pending.item
        packed.setdefault((topic, partition), []).append(record)
    return packed
