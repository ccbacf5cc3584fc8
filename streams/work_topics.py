"""The work topics of one level while its scheduler runs: one that is deleted or made anew costs its own queue alone.

It is looked for every other second, before a batch can meet it. As long as it is not there its queue's tasks get no
work records; it is made again, and then the tasks that wait without one, or whose record went with the old topic, are
given back as by a worker that stops: with the next attempt they get their work records anew. What is seen counts when
it is seen twice: a broker may not know of a topic, or of its end, that another has just made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from aiokafka import TopicPartition

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.work_topics import changes_of, mend_work, work_topics
from core.settings.models import Settings
from schemas.codec import STATUS, state_of
from schemas.events import event, scheduler_event
from schemas.kafka_record import AddressedRecord
from schemas.partitioning import queue_number
from schemas.records import Queue, Status
from schemas.topics import Topic, level_name

log = logging.getLogger(__name__)

LOOK_S = 2.0
CONFIRM_S = 0.5
"""Until what was seen for the first time is looked at again."""
ENDS_EVERY = 5
"""Looks from one comparison of ends to the next: it asks for every partition."""
PACK = 200
"""Tasks given back at once."""
SLICE = 2_000
"""Rows walked before the loop gets a turn: about 10 ms."""
REASON = "its work topic was made anew"


class Queues(Protocol):
    """What is known of the queues."""

    def all(self) -> list[Queue]:
        """Return every queue."""


class ScansRows(Protocol):
    """The rows of one level."""

    def scan_from(self, partition: int, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Walk the rows of a partition in the order of their keys, from a key on."""


class WorkTopics:
    """Watch the work topics of a level; `lacks` tells which queues have none now."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        lookup: LogReader,
        producer: Producer,
        queues: Queues,
        rows: ScansRows,
        partitions: Callable[[], Iterable[int]],
        under_way: Callable[[], int | None],
        written: dict[tuple[str, int], int],
    ) -> None:
        """Make it.

        `under_way` numbers the batch that is being folded now, None when there is none; `written` has the offset behind
        the last record that was written to each partition, and is forgotten here for topics that are made anew.
        """
        self._settings, self._level = settings, level
        self._lookup, self._producer = lookup, producer
        self._queues, self._rows, self._partitions, self._under_way = queues, rows, partitions, under_way
        self._written = written
        self._lacking: dict[str, str] = {}
        self._suspected: set[str] = set()
        self._low: set[TopicPartition] = set()
        self._again: dict[str, int | None] = {}
        """Queues whose tasks are to be given back → the batch that has to be over first: it may have left some out."""
        self._ends: dict[TopicPartition, int] = {}
        self._looks = 0

    def lacks(self, queue: str) -> bool:
        """Tell whether a queue has no work topic now."""
        return queue in self._lacking

    @property
    def lacking(self) -> list[str]:
        """List the queues whose work topics are not there."""
        return sorted(self._lacking)

    @property
    def unsure(self) -> bool:
        """Tell whether something was seen that the next look is to confirm."""
        return bool(self._suspected)

    async def run(self) -> None:
        """Look until cancelled; a broker that is away is asked again."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log.info("work topics: %s", error, extra={"event": "work_topics_unseen"})
            await asyncio.sleep(CONFIRM_S if self.unsure else LOOK_S)

    async def look(self) -> None:
        """See what is there, make what is not, and give back what waits for it."""
        wanted = {
            topic: (queue["name"], declared)
            for queue in self._queues.all()
            for topic, declared in work_topics(self._settings, [queue], [self._level]).items()
        }
        there = await self._lookup.widths(list(wanted))
        seen = changes_of({topic: declared for topic, (_, declared) in wanted.items()}, there)
        changes = [one for one in seen if one.topic in self._suspected or wanted[one.topic][0] in self._lacking]
        self._suspected = {one.topic for one in seen}
        lacking = {wanted[one.topic][0]: one.was for one in changes}
        for queue in lacking.keys() - self._lacking.keys():
            log.error(
                "the work topic of queue %s (%s) is not as it should be (%s); its tasks wait",
                queue,
                level_name(self._level),
                lacking[queue],
                extra={"event": "work_topic_missing", "queue": queue, "level": self._level},
            )
        self._lacking |= lacking
        if lacking:
            await mend_work(self._settings, {one.topic: wanted[one.topic][1] for one in changes})
            for one in changes:
                self._forget(one.topic)
        for queue in list(self._lacking):
            del self._lacking[queue]
            self._again[queue] = self._under_way()
        await self._compare(wanted, there)
        await self._give_back()

    async def _compare(self, wanted: dict[str, tuple[str, Topic]], there: dict[str, int]) -> None:
        """Notice topics that were made anew between two looks: their ends are lower than they were."""
        self._looks += 1
        if self._looks % ENDS_EVERY != 1 and not self._low:
            return
        tps = [TopicPartition(topic, number) for topic in wanted for number in range(there.get(topic, 0))]
        ends = await self._lookup.ends(tps)
        low = {tp for tp, end in ends.items() if end < max(self._ends.get(tp, 0), self._written.get(tp, 0))}
        anew = {tp.topic for tp in low & self._low}
        for topic in anew:
            self._forget(topic)
            self._again.setdefault(wanted[topic][0], self._under_way())
        self._low = {tp for tp in low if tp.topic not in anew}
        self._ends = ends | {tp: self._ends[tp] for tp in self._low & self._ends.keys()}

    def _forget(self, topic: str) -> None:
        for ends in (self._written, self._ends):
            for place in [one for one in ends if one[0] == topic]:
                del ends[place]

    async def _give_back(self) -> None:
        owned = sorted(self._partitions())
        now = self._under_way()
        for queue in [one for one, batch in self._again.items() if batch is None or batch != now]:
            if not owned:
                return  # a start or a rebalance: they are given back once the partitions are there
            count = 0
            for partition in owned:
                count += await self._give_back_of(queue, partition)
            self._again.pop(queue, None)
            log.warning(
                "the work topic of queue %s (%s) is there again; %d tasks get their work records anew",
                queue,
                level_name(self._level),
                count,
                extra={"event": "work_topic_mended", "queue": queue, "level": self._level},
            )

    async def _give_back_of(self, queue: str, partition: int) -> int:
        prefix = f"TASK-{queue_number(queue)}-{self._level}-".encode()
        count, pack = 0, []
        for number, (key, value) in enumerate(self._rows.scan_from(partition, prefix)):
            if not key.startswith(prefix):
                break
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if state_of(value) == "queued" and _waits(row := STATUS.decode(value), queue):
                pack.append(self._released(row, partition))
                count += 1
            if len(pack) == PACK:
                await self._producer.send_all(pack)
                pack = []
        if pack:
            await self._producer.send_all(pack)
        return count

    def _released(self, row: Status, partition: int) -> AddressedRecord:
        now_ms = time.time_ns() // 1_000_000
        what = event("released", at_ms=now_ms, task_id=row["id"], attempt=row["attempt"], reason=REASON)
        return scheduler_event(self._settings.kafka.topic_prefix, what, level=self._level, partition=partition)


def _waits(row: Status, queue: str) -> bool:
    """Tell whether a row is of the queue, whose number another may share, and was to have a work record by now."""
    return row["queue"] == queue and row["duplicate_of"] is None and row["not_before_ms"] is None
