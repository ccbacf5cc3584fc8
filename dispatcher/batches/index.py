"""Index of unfinished batches by partition, from the batches topic."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

from aiokafka import TopicPartition

from core.bounded_set import BoundedSet
from core.clock import epoch_ms
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from dispatcher.batches.output_segments import segment_names_of
from schemas import bitmap, topics
from schemas.batches import BATCH_ENDED, Batch
from schemas.codec import BATCH, SchemaError
from schemas.framing import FramingError
from schemas.ids import MODE_CODES, parse

RECENT_MS = 3_600_000
"""At a start the batches of weeks are read; the segments of those that ended so long ago were collected already."""
MAX_ENDED = 1_000
"""Batches of other processes' partitions are included; a dropped entry leaves segments that no row refers to.

Such a segment uses storage and has no other effect.
"""

RECENT_BATCHES = 10_000
"""Finished batches that are remembered, because their work might be received again."""
LINE = f"-{MODE_CODES['batch']}-"
LineGroup = tuple[int, int, int]
"""The part that the ids of all lines of a batch share: partition, queue number and second."""

log = logging.getLogger(__name__)


class BatchIndex:
    """The newest row of each unfinished batch; `on_change` is called with the partition of changed rows."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
    ) -> None:
        self.on_change: Callable[[int], None] = lambda _: None
        self._lines: dict[LineGroup, str] = {}
        self._ended_groups: BoundedSet[LineGroup] = BoundedSet(at_least=RECENT_BATCHES)
        self._ended: dict[int, dict[str, frozenset[str]]] = defaultdict(dict)
        self._rows: dict[int, dict[str, Batch]] = defaultdict(dict)
        self._opened = False
        topic = settings.topic(topics.BATCHES)
        self._follower = TopicFollower(settings, name=f"{name}-rows", topics=[topic], handle=self.apply)

    async def open(self) -> None:
        """Read the whole topic, then follow it; a second call does nothing."""
        if not self._opened:
            self._opened = True
            await self._follower.open()
            await self._follower.wait_caught_up()

    async def close(self) -> None:
        """Stop following the topic; a second call does nothing."""
        if self._opened:
            self._opened = False
            await self._follower.close()

    def open_batches(self, home: int) -> list[Batch]:
        """Return the unfinished batches of a partition, the oldest first."""
        return sorted(self._rows[home].values(), key=lambda row: (row["created_ms"], row["id"]))

    def get(self, home: int, batch_id: str) -> Batch | None:
        """Return the newest row of an unfinished batch."""
        return self._rows[home].get(batch_id)

    def ended(self, home: int) -> dict[str, frozenset[str]]:
        """Return recently finished batches with the names of their segments; the caller removes entries."""
        return self._ended[home]

    def has_outcome(self, task_id: str) -> bool:
        """Return whether a task is a batch line with an outcome in the log: its work must not be done again.

        A killed dispatcher has not committed its last offsets, so finished work is received again.
        """
        if LINE not in task_id:
            return False
        line = parse(task_id)
        group = (line.partition, line.queue_number, line.time_s)
        if group in self._ended_groups:
            return True
        row = self._rows[line.partition].get(self._lines.get(group, ""))
        return row is not None and bitmap.has(row["ended"], line.serial)

    def apply(self, tp: TopicPartition, records: Records) -> None:
        """Apply the next rows; only the last row of a batch is decoded, because rows are large and frequent."""
        newest = {record.key or b"": record.value for record in records}
        for key, value in newest.items():
            self._apply(tp.partition, key.decode(errors="replace"), value)
        self.on_change(tp.partition)

    def _apply(self, home: int, batch_id: str, value: bytes | None) -> None:
        row: Batch | None = None
        if value is not None:
            try:
                row = BATCH.decode(value)
            except (FramingError, SchemaError) as error:
                log.error(
                    "cannot decode the row of batch %s: %s", batch_id, error, extra={"event": "batch_row_unreadable"}
                )
                return
        if row is not None and row["state"] not in BATCH_ENDED:
            self._rows[home][batch_id] = row
            self._lines[home, row["queue_number"], row["stamp_s"]] = batch_id
            return
        if row is not None:
            group = (home, row["queue_number"], row["stamp_s"])
            self._lines.pop(group, None)
            self._ended_groups.add(group)
        self._rows[home].pop(batch_id, None)
        if row is None or epoch_ms() - row["updated_ms"] < RECENT_MS:
            ended = self._ended[home]
            ended.pop(batch_id, None)
            ended[batch_id] = segment_names_of(row) if row is not None else frozenset()
            while len(ended) > MAX_ENDED:
                del ended[next(iter(ended))]
