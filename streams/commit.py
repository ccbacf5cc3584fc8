"""Make a fold durable: what follows from it first, then the rows of batches, then those of tasks.

A row never tells of an output that is not in the log. A batch's row is written before its tasks' rows, so a bit in
`ended` can be ahead of its task and never behind; what was cut off is read again and finds the bit set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from core.errors import DeliveryFailed, Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas import topics
from streams import metrics, outputs
from streams.faust.app import StateTable
from streams.state_index import StateIndex
from streams.transaction import StateKey, Transaction

RecordsByPartition = dict[tuple[str, int], list[Record]]


class Committer:
    """Writes what the scheduler of one lane has folded."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        producer: Producer,
        index: StateIndex,
        rows: Callable[[], StateTable],
        batches: Callable[[], StateTable],
    ) -> None:
        self._lane = topics.LEVELS[level]
        self._producer = producer
        self._index = index
        self._rows = rows
        self._batches = batches
        self._results = settings.topic(topics.results(level))
        self._status = settings.topic(topics.status(level))
        self._changelog = settings.topic(topics.BATCHES)
        self._work = settings.topic(topics.WORK)
        self.written: dict[tuple[str, int], int] = {}
        """The offset behind the last work record that was written to each partition."""

    async def commit(self, transaction: Transaction, now_ms: int) -> None:
        """Write everything in order; raises DeliveryFailed."""
        try:
            await self._write_outputs(transaction)
            await self._write_batches(transaction, now_ms)
            await self._write_rows(transaction, now_ms)
        except Unavailable as error:
            raise DeliveryFailed(f"a batch could not be made durable: {error}") from error
        for (partition, _), batch_before, batch_after in transaction.batches.changes():
            self._index.update_batch(partition, batch_before, batch_after, now_ms=now_ms)
        for (partition, _), before, after in transaction.changes():
            self._index.changed(partition, before, after, now_ms=now_ms)
        for reason, count in transaction.reasons.items():
            metrics.DROPPED.labels(self._lane, reason).inc(count)

    async def _write_outputs(self, transaction: Transaction) -> None:
        """Write results and all else that follows; the rows then know where their results lie."""
        records: RecordsByPartition = dict(transaction.records)
        written: dict[int, list[StateKey]] = defaultdict(list)
        line_stored: list[tuple[StateKey, int]] = []
        for pending in transaction.results.values():
            partition = pending.key[0]
            if pending.record is not None:
                records.setdefault((self._results, partition), []).append(pending.record)
                written[partition].append(pending.key)
            elif pending.offset is not None:
                line_stored.append((pending.key, pending.offset))
        offsets = await self._producer.send_batch(records) if records else {}
        self.written |= {at: found[-1] + 1 for at, found in offsets.items() if at[0].startswith(self._work)}
        for partition, keys in written.items():
            line_stored += zip(keys, offsets[self._results, partition], strict=True)
        for key, offset in line_stored:
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
            self._store(self._batches(), records, await self._producer.send_batch(records))

    async def _write_rows(self, transaction: Transaction, now_ms: int) -> None:
        records: RecordsByPartition = defaultdict(list)
        for (partition, task_id), before, after in transaction.changes():
            if after is not None:
                records[self._status, partition].append(outputs.status_record(after, now_ms=now_ms))
                metrics.entered(self._lane, before, after)
            elif before is not None:
                records[self._status, partition].append(Record(task_id.encode(), None, [], now_ms))
        if records:
            self._store(self._rows(), records, await self._producer.send_batch({**records, **transaction.usage}))

    def _store(self, rows: StateTable, records: RecordsByPartition, offsets: dict[tuple[str, int], list[int]]) -> None:
        for (topic, partition), written in records.items():
            stored = [(record.key or b"", record.value) for record in written]
            rows.put(partition, stored, offset=offsets[topic, partition][-1])
