"""A cluster in memory: its topics are the lists of the memory double, and every group has read everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from core.kafka.cluster import Lag, Member
from schemas.topics import DEAD_LETTER_PARTITIONS, DEAD_LETTERS, declared


class MemoryCluster:
    """Answers as core.kafka.cluster.Cluster does."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.unread = 0
        """How many records each group has not read, as far as there are so many."""
        self.there = False
        """Whether the topics are there; without them nobody looks for long."""
        self.gone: set[str] = set()
        """Topics that are not there all the same."""
        self.counts: dict[str, int] = {}
        """Topics with another number of partitions than declared."""

    async def topics(self, names: Iterable[str]) -> dict[str, int]:
        """Return those of some topics that are declared, and work topics; or none."""
        names = list(names)
        settings = self._memory.settings
        wanted = declared(partitions=settings.kafka.partitions) if self.there else ()
        there = {settings.topic(topic.name): topic.partitions for topic in wanted}
        work = settings.topic("work.")
        there |= {name: settings.kafka.work_partitions for name in names if name.startswith(work) and self.there}
        there |= self.counts
        return {name: there[name] for name in names if name in there and name not in self.gone}

    async def unreadable(self, names: Sequence[str]) -> dict[str, str]:  # noqa: ARG002 - of any
        """Read everything."""
        return {}

    async def record_counts(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Count records."""
        return {tp: len(self._log(*tp)) for tp in tps}

    async def held(self, there: Mapping[str, int]) -> dict[TopicPartition, int]:  # noqa: ARG002 - of any
        """Know no transactions."""
        return {}

    async def lags(self, wanted: Sequence[tuple[str, str]]) -> list[Lag]:
        """Tell how far groups have read."""
        return [self._lag(group, topic) for group, topic in wanted]

    def _lag(self, group: str, topic: str) -> Lag:
        ends = {number: len(self._log(topic, number)) for number in range(self._memory.settings.kafka.partitions)}
        return Lag(group, topic, {number: max(0, end - self.unread) for number, end in ends.items()}, ends)

    async def members(self, groups: Sequence[str]) -> dict[str, list[Member]]:
        """Return one reader of each group."""
        return {group: [Member("reader", "127.0.0.1", (TopicPartition(group, 0),))] for group in groups}

    async def delete_before(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Delete nothing, and say so."""
        return dict(offsets)

    @asynccontextmanager
    async def reading(self, topics: Iterable[str]) -> AsyncIterator[Any]:  # noqa: ARG002 - all are there
        """Read records."""
        yield Reader(self._memory)

    def _log(self, topic: str, number: int) -> list[Any]:
        found: list[Any] = self._memory.log.get(TopicPartition(topic, number), [])
        return found


class Reader:
    """Reads with headers and times, which the memory's own look-up leaves out."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    async def bounds(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first and the next offset."""
        return {tp: (0, len(self._memory.log.get(tp, []))) for tp in tps}

    async def read(self, tp: TopicPartition, offset: int) -> Any:
        """Return a record."""
        found = [one async for one in self.read_range(tp, offset, offset + 1)]
        return found[0] if found else None

    async def read_range(self, tp: TopicPartition, offset: int, end: int) -> AsyncIterator[Any]:
        """Yield records."""
        for record in [one async for one in self._memory.read_range(tp, offset, end)]:
            kept = self._memory.log[tp][record.offset]
            yield record._replace(headers=kept.headers, timestamp=kept.timestamp_ms or 0)

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int | None:
        """Return where a time begins: all records are of long ago."""
        return None if at_ms > 0 else len(self._memory.log.get(tp, []))


def bury(memory: Any, partition: int, record: Any) -> None:
    """Put a dead letter into the log."""
    assert partition < DEAD_LETTER_PARTITIONS
    memory.log[TopicPartition(memory.settings.topic(DEAD_LETTERS), partition)].append(record)
