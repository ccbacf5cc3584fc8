"""Timers: writes an event to events.LEVEL for everything that is due, so that the scheduler processes it in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.task_records import task_of
from core.settings.models import Settings
from schemas import ids, topics
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
"""Delay before a due event that could not be written is retried."""


class Timers:
    """Writes due events for the owned partitions."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        producer: Producer,
        lookup: LogReader,
        index: StateIndex,
        rows: StateTable,
        partitions: AbstractSet[int],
        batches: StateTable | None = None,
        kafka_since_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        """Create the timers; `run` starts them.

        Args:
            partitions: the owned partitions; changed at each rebalance.
            kafka_since_ms: returns since when Kafka is available without interruption; leases run only then.
        """
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
        self._partitions = partitions

    async def run(self) -> None:
        """Write due events until cancelled."""
        swept_ms = epoch_ms()
        while True:
            await asyncio.sleep(TICK_S)
            if not self._partitions:
                continue  # a rebalance: the index is being rebuilt
            now_ms = epoch_ms()
            due = self._index.due(now_ms=now_ms)
            suspects = self._index.expired_workers(
                now_ms=now_ms, lease_ms=self._lease_ms, since_ms=self._kafka_since_ms()
            )
            if due or suspects:
                await self._emit(due, suspects, now_ms)
            if now_ms - swept_ms > SWEEP_MS:
                swept_ms = now_ms
                owned = sorted(self._partitions)
                await sweep(self._rows, self._index, owned, now_ms=now_ms, rebuild=False)
                await sweep_batches(self._batches, self._index, owned, now_ms=now_ms, rebuild=False)

    async def _emit(self, due: list[Due], suspects: list[tuple[int, str]], now_ms: int) -> None:
        records: list[AddressedRecord] = [
            self._record(partition, event("worker_lost", at_ms=now_ms, worker=worker), worker)
            for partition, worker in suspects
            if partition in self._partitions
        ]
        try:
            found = [(entry, await self._due_event(entry, now_ms)) for entry in due]
            records += [self._record(entry.partition, event_, entry.task_id) for entry, event_ in found if event_]
            await self._producer.send_all(records)
        except Unavailable as error:
            log.warning("cannot write due events, will retry: %s", error, extra={"event": "timer_write_failed"})
            self._index.reschedule(due, delay_ms=RETRY_MS, now_ms=now_ms)

    async def _due_event(self, due: Due, now_ms: int) -> Event | None:
        """Return the event of a due time; None if the state record has changed."""
        source = self._batches if due.kind == "batch_due" else self._rows
        owned = due.partition in self._partitions
        stored = source.get(due.partition, due.task_id.encode()) if owned else None
        if stored is None:
            return None
        if due.kind == "batch_due":
            return event("batch_due", at_ms=now_ms, task_id=due.task_id)
        return await self._event_for(due, STATUS.decode(stored), now_ms)

    async def _event_for(self, due: Due, row: Status, now_ms: int) -> Event | None:
        if due.kind == "expire":
            return event("expire", at_ms=now_ms, task_id=row["id"]) if row["expires_ms"] else None
        if row["state"] in TERMINAL:
            return None
        if due.kind == "retry_due":
            return await self._retry(row, now_ms)
        # A start deadline that was met, and a lease that was released, need no event.
        until_ms = next_deadline_ms(row) if due.kind == "deadline" else row["lease_until_ms"]
        if until_ms is None or now_ms < until_ms:
            return None
        attempt = row["attempt"] if due.kind == "lease_over" else 0
        return event(due.kind, at_ms=now_ms, task_id=row["id"], attempt=attempt)

    async def _retry(self, row: Status, now_ms: int) -> Event | None:
        """Return the event with the task's body, which state records do not contain."""
        if row["not_before_ms"] is None or row["not_before_ms"] > now_ms:
            return None
        record = await self._lookup.read(TopicPartition(self._tasks, ids.partition_of(row["id"])), row["source_offset"])
        task = task_of(record, row["id"])
        if task is None:
            log.error(
                "the record of task %s no longer exists; the task fails at its deadline",
                row["id"],
                extra={"event": "body_missing", "task_id": row["id"]},
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

    def _record(self, partition: int, happened: Event, key: str) -> AddressedRecord:
        return scheduler_event(self._prefix, happened, level=self._level, partition=partition, key=key)
