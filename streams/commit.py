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

Shipped = dict[tuple[str, int], list[Record]]


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

    async def ship(self, fold: Transaction, now_ms: int) -> None:
        """Write everything in order; raises DeliveryFailed."""
        try:
            await self._write_outputs(fold)
            await self._write_batches(fold, now_ms)
            await self._write_rows(fold, now_ms)
        except Unavailable as error:
            raise DeliveryFailed(f"a batch could not be made durable: {error}") from error
        for (partition, _), batch_before, batch_after in fold.batches.changes():
            self._index.batch_changed(partition, batch_before, batch_after, now_ms=now_ms)
        for (partition, _), before, after in fold.changes():
            self._index.changed(partition, before, after, now_ms=now_ms)
        for note, count in fold.notes.items():
            metrics.NOTES.labels(self._lane, note).inc(count)

    async def _write_outputs(self, fold: Transaction) -> None:
        """Write results and all else that follows; the rows then know where their results lie."""
        records: Shipped = dict(fold.records)
        written: dict[int, list[StateKey]] = defaultdict(list)
        placed: list[tuple[StateKey, int]] = []
        for pending in fold.results.values():
            partition = pending.home[0]
            if pending.record is not None:
                records.setdefault((self._results, partition), []).append(pending.record)
                written[partition].append(pending.home)
            elif pending.offset is not None:
                placed.append((pending.home, pending.offset))
        offsets = await self._producer.send_batch(records) if records else {}
        self.written |= {at: found[-1] + 1 for at, found in offsets.items() if at[0].startswith(self._work)}
        for partition, homes in written.items():
            placed += zip(homes, offsets[self._results, partition], strict=True)
        for home, offset in placed:
            if (row := fold.rows[home]) is not None:
                row["result_offset"] = offset
                fold.batches.placed(home[0], row)

    async def _write_batches(self, fold: Transaction, now_ms: int) -> None:
        shipped: Shipped = defaultdict(list)
        for (partition, batch_id), before, after in fold.batches.changes():
            if after is not None:
                shipped[self._changelog, partition].append(outputs.batch_record(after, now_ms=now_ms))
                if before is None or before["state"] != after["state"]:
                    metrics.BATCH_STATES.labels(after["state"]).inc()
            elif before is not None:
                shipped[self._changelog, partition].append(Record(batch_id.encode(), None, [], now_ms))
        if shipped:
            self._store(self._batches(), shipped, await self._producer.send_batch(shipped))

    async def _write_rows(self, fold: Transaction, now_ms: int) -> None:
        shipped: Shipped = defaultdict(list)
        for (partition, task_id), before, after in fold.changes():
            if after is not None:
                shipped[self._status, partition].append(outputs.status_record(after, now_ms=now_ms))
                metrics.entered(self._lane, before, after)
            elif before is not None:
                shipped[self._status, partition].append(Record(task_id.encode(), None, [], now_ms))
        if shipped:
            self._store(self._rows(), shipped, await self._producer.send_batch({**shipped, **fold.usage}))

    def _store(self, rows: StateTable, shipped: Shipped, offsets: dict[tuple[str, int], list[int]]) -> None:
        for (topic, partition), records in shipped.items():
            stored = [(record.key or b"", record.value) for record in records]
            rows.put(partition, stored, offset=offsets[topic, partition][-1])
