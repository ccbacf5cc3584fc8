"""Time as events: what has become due is written to events.LEVEL, where the scheduler judges it in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import TopicPartition

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.task_records import task_of
from core.settings.models import Settings
from schemas import topics
from schemas.codec import STATUS
from schemas.events import event, scheduler_event
from schemas.kafka_record import AddressedRecord
from schemas.records import TERMINAL, Event, Status
from streams.faust.app import EmptyTable, StateTable
from streams.recovery.scan import sweep, sweep_batches
from streams.state_index import SWEEP_MS, Due, StateIndex
from streams.state_machine.rows import next_deadline_ms

log = logging.getLogger(__name__)

TICK_S = 0.1
RETRY_MS = 1_000
"""Wait before something due is tried again whose event could not be written."""


class Timers:
    """Write due events for the partitions that this process owns."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        producer: Producer,
        lookup: LogReader,
        index: StateIndex,
        rows: StateTable,
        batches: StateTable | None = None,
        kafka_since_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        """`kafka_since_ms` tells since when Kafka has worked without a break: no lease runs while it does not."""
        self._level = level
        self._producer = producer
        self._lookup = lookup
        self._index = index
        self._rows = rows
        self._batches = batches or EmptyTable()
        self._kafka_since_ms = kafka_since_ms
        self._lease_ms = int(settings.streams.lease_s * 1000)
        self._prefix = settings.kafka.topic_prefix
        self._tasks = settings.topic(topics.tasks(level))
        self.partitions: set[int] = set()

    async def run(self) -> None:
        """Tick until cancelled."""
        swept_ms = _now_ms()
        while True:
            await asyncio.sleep(TICK_S)
            if not self.partitions:
                continue  # a rebalance: the index is being rebuilt, and what is popped now would be nobody's
            now_ms = _now_ms()
            due = self._index.due(now_ms=now_ms)
            suspects = self._index.suspects(now_ms=now_ms, lease_ms=self._lease_ms, since_ms=self._kafka_since_ms())
            if due or suspects:
                await self._tell(due, suspects, now_ms)
            if now_ms - swept_ms > SWEEP_MS:
                swept_ms = now_ms
                owned = sorted(self.partitions)
                await sweep(self._rows, self._index, owned, now_ms=now_ms, rebuild=False)
                await sweep_batches(self._batches, self._index, owned, now_ms=now_ms, rebuild=False)

    async def _tell(self, due: list[Due], suspects: list[tuple[int, str]], now_ms: int) -> None:
        records: list[AddressedRecord] = [
            self._record(partition, event("worker_lost", at_ms=now_ms, worker=worker), worker)
            for partition, worker in suspects
            if partition in self.partitions
        ]
        try:
            found = [(one, await self._due_event(one, now_ms)) for one in due]
            records += [self._record(one.partition, what, one.task_id) for one, what in found if what]
            await self._producer.send_all(records)
        except Unavailable as error:
            log.warning("timers: %s", error, extra={"event": "timers_delayed"})
            self._index.put_back(due, delay_ms=RETRY_MS, now_ms=now_ms)

    async def _due_event(self, due: Due, now_ms: int) -> Event | None:
        """Return the event for something due, None when the row has moved on."""
        source = self._batches if due.kind == "batch_due" else self._rows
        owned = due.partition in self.partitions
        stored = source.get(due.partition, due.task_id.encode()) if owned else None
        if stored is None:
            return None
        if due.kind == "batch_due":
            return event("batch_due", at_ms=now_ms, task_id=due.task_id)
        return await self._about(due, STATUS.decode(stored), now_ms)

    async def _about(self, due: Due, row: Status, now_ms: int) -> Event | None:
        if due.kind == "expire":
            return event("expire", at_ms=now_ms, task_id=row["id"]) if row["expires_ms"] else None
        if row["state"] in TERMINAL:
            return None
        if due.kind == "retry_due":
            return await self._retry(row, now_ms)
        # A time to start that was kept, and a lease that was given back, are nothing to tell of.
        until_ms = next_deadline_ms(row) if due.kind == "deadline" else row["lease_until_ms"]
        if until_ms is None or now_ms < until_ms:
            return None
        attempt = row["attempt"] if due.kind == "lease_over" else 0
        return event(due.kind, at_ms=now_ms, task_id=row["id"], attempt=attempt)

    async def _retry(self, row: Status, now_ms: int) -> Event | None:
        """Bring the task's body with the event, for the scheduler keeps none."""
        if row["not_before_ms"] is None or row["not_before_ms"] > now_ms:
            return None
        record = await self._lookup.read(TopicPartition(self._tasks, _home(row)), row["source_offset"])
        task = task_of(record)
        if task is None:
            log.error(
                "the record of %s is gone; it ends at its deadline",
                row["id"],
                extra={"event": "body_lost", "task_id": row["id"]},
            )
            return None
        data = task["data"].encode() if isinstance(task["data"], str) else task["data"]
        return event(
            "retry_due",
            at_ms=now_ms,
            task_id=row["id"],
            attempt=row["attempt"],
            data=data if task["data_ref"] is None else None,
            data_ref=task["data_ref"],
        )

    def _record(self, partition: int, what: Event, key: str) -> AddressedRecord:
        return scheduler_event(self._prefix, what, level=self._level, partition=partition, key=key)


def _home(row: Status) -> int:
    return int(row["id"].rsplit("-", 2)[1])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
