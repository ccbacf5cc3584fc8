"""Commits a transaction: outputs first, then the state records of batches, then those of tasks.

A state record never refers to an output that is not in the log. A batch's record is written before those of its tasks,
so a bit in `ended` can precede its task and never follow it; an input that is read again finds the bit set.
"""

from __future__ import annotations

from collections import defaultdict

from core.errors import DeliveryFailed, Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas import topics
from streams import metrics, outputs
from streams.faust.app import StateTable
from streams.state_index import StateIndex
from streams.state_machine.rows import StateKey
from streams.transaction import Transaction

RecordsByPartition = dict[tuple[str, int], list[Record]]


class Committer:
    """Writes the transactions of one level."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        producer: Producer,
        index: StateIndex,
        rows: StateTable,
        batches: StateTable,
        written: dict[tuple[str, int], int] | None = None,
    ) -> None:
        """`written` receives the offset after the last work record of each (topic, partition)."""
        self._level_name = topics.LEVELS[level]
        self._producer = producer
        self._index = index
        self._rows = rows
        self._batches = batches
        self._results = settings.topic(topics.results(level))
        self._status = settings.topic(topics.status(level))
        self._changelog = settings.topic(topics.BATCHES)
        self._work = settings.topic(topics.WORK)
        self._written = {} if written is None else written

    async def commit(self, transaction: Transaction, now_ms: int) -> None:
        """Write everything in order; raises DeliveryFailed if one step fails."""
        try:
            await self._write_outputs(transaction)
            await self._write_batches(transaction, now_ms)
            await self._write_rows(transaction, now_ms)
        except Unavailable as error:
            raise DeliveryFailed(f"a batch could not be made durable: {error}") from error
        for (partition, _), batch_before, batch_after in transaction.batches.changes():
            self._index.update_batch(partition, batch_before, batch_after, now_ms=now_ms)
        for (partition, _), before, after in transaction.changes():
            self._index.update(partition, before, after, now_ms=now_ms)
        for reason, count in transaction.reasons.items():
            metrics.DROPPED.labels(self._level_name, reason).inc(count)

    async def _write_outputs(self, transaction: Transaction) -> None:
        """Write results and all other outputs, and set the result offsets in the state records."""
        records: RecordsByPartition = dict(transaction.records)
        new: dict[int, list[StateKey]] = defaultdict(list)
        placed: list[tuple[StateKey, int]] = []
        for pending in transaction.results.values():
            partition = pending.key[0]
            if pending.record is not None:
                records.setdefault((self._results, partition), []).append(pending.record)
                new[partition].append(pending.key)
            elif pending.offset is not None:
                placed.append((pending.key, pending.offset))
        offsets = await self._producer.send_batch(records) if records else {}
        self._written |= {at: found[-1] + 1 for at, found in offsets.items() if at[0].startswith(self._work)}
        for partition, keys in new.items():
            placed += zip(keys, offsets[self._results, partition], strict=True)
        for key, offset in placed:
            if (row := transaction.rows[key]) is not None:
                row["result_offset"] = offset
                transaction.batches.line_stored(key[0], row)

    async def _write_batches(self, transaction: Transaction, now_ms: int) -> None:
        records: RecordsByPartition = defaultdict(list)
        for (partition, batch_id), before, after in transaction.batches.changes():
            if after is not None:
                records[self._changelog, partition].append(outputs.batch_record(after, now_ms=now_ms))
                if before is None or before["state"] != after["state"]:
                    metrics.BATCH_STATES.labels(after["state"]).inc()
            elif before is not None:
                records[self._changelog, partition].append(Record(batch_id.encode(), None, [], now_ms))
        if records:
            self._store(self._batches, records, await self._producer.send_batch(records))

    async def _write_rows(self, transaction: Transaction, now_ms: int) -> None:
        records: RecordsByPartition = defaultdict(list)
        for (partition, task_id), before, after in transaction.changes():
            if after is not None:
                records[self._status, partition].append(outputs.status_record(after, now_ms=now_ms))
                metrics.count_state(self._level_name, before, after)
            elif before is not None:
                records[self._status, partition].append(Record(task_id.encode(), None, [], now_ms))
        if records:
            self._store(self._rows, records, await self._producer.send_batch({**records, **transaction.usage}))

    def _store(self, rows: StateTable, records: RecordsByPartition, offsets: dict[tuple[str, int], list[int]]) -> None:
        for (topic, partition), written in records.items():
            stored = [(record.key or b"", record.value) for record in written]
            rows.put(partition, stored, offset=offsets[topic, partition][-1])
