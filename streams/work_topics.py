"""Watches the work topics of one level while its scheduler runs: a deleted or recreated topic affects only its queue.

The topics are checked every two seconds. While a work topic is missing, its queue's tasks get no work records. The
topic is created again, and the tasks whose work record is missing or was lost with the topic are requeued, as if their
worker had released them: their next attempt gets a work record. A change counts when it is seen twice, because a broker
may not know yet of a topic, or of its end, that another broker has just created.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.work_topics import changes_of, repair_work_topics, work_topics
from core.settings.models import Settings
from schemas.codec import STATUS, state_of
from schemas.events import event, scheduler_event
from schemas.kafka_record import AddressedRecord
from schemas.partitioning import queue_number
from schemas.records import Queue, Status
from schemas.topics import Topic, level_name

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 2.0
CONFIRM_S = 0.5
"""Delay before a change that was seen for the first time is checked again."""
CHECKS_PER_COMPARISON = 5
"""Checks between two comparisons of the topics' ends, which query every partition."""
SEND_BATCH = 200
"""Tasks requeued in one write."""
ROWS_PER_STEP = 2_000
"""State records read before the event loop runs: about 10 ms."""
REASON = "its work topic was recreated"


@dataclass(slots=True)
class WorkTopicState:
    """State that the scheduler of a level shares with the watcher of its work topics."""

    missing: dict[str, str] = field(default_factory=dict)
    """Queue → what is wrong with its work topic; the watcher changes it."""
    written: dict[tuple[str, int], int] = field(default_factory=dict)
    """(Topic, partition) → offset after the last record written; the watcher resets it for recreated topics."""
    batch: int | None = None
    """Number of the batch that the scheduler is processing; None between batches."""


class Queues(Protocol):
    """The queue directory."""

    def all(self) -> list[Queue]:
        """Return every queue."""


class ScansRows(Protocol):
    """The state records of one level."""

    def scan_from(self, partition: int, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a partition in key order, starting at `key`."""


class WorkTopics:
    """Watches the work topics of one level."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        lookup: LogReader,
        producer: Producer,
        queues: Queues,
        rows: ScansRows,
        partitions: AbstractSet[int],
        state: WorkTopicState,
    ) -> None:
        """Create the watcher; `run` starts it.

        Args:
            partitions: the owned partitions; changed at each rebalance.
            state: shared with the scheduler.
        """
        self._settings, self._level = settings, level
        self._lookup, self._producer = lookup, producer
        self._queues, self._rows, self._partitions, self._state = queues, rows, partitions, state
        self._suspected: set[str] = set()
        self._low: set[TopicPartition] = set()
        self._to_requeue: dict[str, int | None] = {}
        """Queues whose tasks are to be requeued → the batch to wait for, which may add more of them."""
        self._ends: dict[TopicPartition, int] = {}
        self._checks = 0

    @property
    def missing(self) -> list[str]:
        """The queues whose work topics are missing."""
        return sorted(self._state.missing)

    @property
    def unconfirmed(self) -> bool:
        """Whether the last check saw a change that the next one has to confirm."""
        return bool(self._suspected)

    async def run(self) -> None:
        """Check until cancelled; an unavailable broker is asked again."""
        while True:
            try:
                await self.check()
            except Unavailable as error:
                log.info("cannot check work topics: %s", error, extra={"event": "work_topic_check_failed"})
            await asyncio.sleep(CONFIRM_S if self.unconfirmed else POLL_INTERVAL_S)

    async def check(self) -> None:
        """Check all work topics, create missing ones and requeue the tasks that need new work records."""
        wanted = {
            topic: (queue["name"], declared)
            for queue in self._queues.all()
            for topic, declared in work_topics(self._settings, [queue], [self._level]).items()
        }
        there = await self._lookup.widths(list(wanted))
        seen = changes_of({topic: declared for topic, (_, declared) in wanted.items()}, there)
        changes = [one for one in seen if one.topic in self._suspected or wanted[one.topic][0] in self._state.missing]
        self._suspected = {one.topic for one in seen}
        missing = {wanted[one.topic][0]: one.was for one in changes}
        for queue in missing.keys() - self._state.missing.keys():
            log.error(
                "work topic of queue %s (%s) is missing or differs (%s); its tasks wait",
                queue,
                level_name(self._level),
                missing[queue],
                extra={"event": "work_topic_missing", "queue": queue, "level": self._level},
            )
        self._state.missing |= missing
        if missing:
            await repair_work_topics(self._settings, {one.topic: wanted[one.topic][1] for one in changes})
            for one in changes:
                self._reset_ends(one.topic)
        for queue in list(self._state.missing):
            del self._state.missing[queue]
            self._to_requeue[queue] = self._state.batch
        await self._compare(wanted, there)
        await self._requeue_tasks()

    async def _compare(self, wanted: dict[str, tuple[str, Topic]], there: dict[str, int]) -> None:
        """Detect topics that were recreated between two checks: their ends are lower than before."""
        self._checks += 1
        if self._checks % CHECKS_PER_COMPARISON != 1 and not self._low:
            return
        tps = [TopicPartition(topic, number) for topic in wanted for number in range(there.get(topic, 0))]
        ends = await self._lookup.ends(tps)
        low = {tp for tp, end in ends.items() if end < max(self._ends.get(tp, 0), self._state.written.get(tp, 0))}
        recreated = {tp.topic for tp in low & self._low}
        for topic in recreated:
            self._reset_ends(topic)
            self._to_requeue.setdefault(wanted[topic][0], self._state.batch)
        self._low = {tp for tp in low if tp.topic not in recreated}
        self._ends = ends | {tp: self._ends[tp] for tp in self._low & self._ends.keys()}

    def _reset_ends(self, topic: str) -> None:
        for ends in (self._state.written, self._ends):
            for place in [one for one in ends if one[0] == topic]:
                del ends[place]

    async def _requeue_tasks(self) -> None:
        owned = sorted(self._partitions)
        now = self._state.batch
        for queue in [one for one, batch in self._to_requeue.items() if batch is None or batch != now]:
            if not owned:
                return  # a start or a rebalance: requeued once partitions are assigned
            count = 0
            for partition in owned:
                count += await self._requeue_tasks_of(queue, partition)
            self._to_requeue.pop(queue, None)
            log.warning(
                "work topic of queue %s (%s) recreated; %d tasks requeued",
                queue,
                level_name(self._level),
                count,
                extra={"event": "work_topic_recreated", "queue": queue, "level": self._level},
            )

    async def _requeue_tasks_of(self, queue: str, partition: int) -> int:
        prefix = f"TASK-{queue_number(queue)}-{self._level}-".encode()
        count, pack = 0, []
        for number, (key, value) in enumerate(self._rows.scan_from(partition, prefix)):
            if not key.startswith(prefix):
                break
            if number % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                await asyncio.sleep(0)
            if state_of(value) == "queued" and _waits(row := STATUS.decode(value), queue):
                pack.append(self._released(row, partition))
                count += 1
            if len(pack) == SEND_BATCH:
                await self._producer.send_all(pack)
                pack = []
        if pack:
            await self._producer.send_all(pack)
        return count

    def _released(self, row: Status, partition: int) -> AddressedRecord:
        now_ms = epoch_ms()
        what = event("released", at_ms=now_ms, task_id=row["id"], attempt=row["attempt"], reason=REASON)
        return scheduler_event(self._settings.kafka.topic_prefix, what, level=self._level, partition=partition)


def _waits(row: Status, queue: str) -> bool:
    """Return whether a task of the queue, whose number another queue may share, should have a work record by now."""
    return row["queue"] == queue and row["duplicate_of"] is None and row["not_before_ms"] is None
