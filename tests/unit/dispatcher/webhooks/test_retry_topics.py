"""The consumer of the retry topics waits for the first record of each partition, and reads nothing meanwhile."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition

from core.settings.models import Settings
from dispatcher.group_consumer import ReceivedRecord
from dispatcher.offset_tracker import OffsetTracker
from dispatcher.webhooks import retry_topics
from schemas import topics


class Record(NamedTuple):
    """The fields of a consumed record."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Reader:
    """A group consumer over lists."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.log: dict[TopicPartition, list[Record]] = {}
        self.held: set[TopicPartition] = set()

    async def poll(self, max_records: int) -> list[ReceivedRecord]:
        """Return the records of the partitions that are not paused."""
        out: list[ReceivedRecord] = []
        for tp in [tp for tp in self.log if tp not in self.held]:
            out += [ReceivedRecord(record, OffsetTracker()) for record in self.log.pop(tp)]
        return out[:max_records]

    def pause(self, tp: TopicPartition) -> None:
        """Pause a partition."""
        self.held.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        """Resume a partition."""
        self.held.discard(tp)


class World:
    """A consumer with a clock that the test advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = 1_000_000
        monkeypatch.setattr(retry_topics, "GroupConsumer", Reader)
        self.settings = Settings()
        self.delays = retry_topics.RetryTopicConsumer(
            self.settings, name="test", on_revoke=self.revoked, clock=lambda: self.now_ms
        )
        reader: Any = self.delays._consumer
        self.reader: Reader = reader
        self.revokes = 0

    async def revoked(self) -> None:
        self.revokes += 1

    def write(self, delay_s: int, *ages_ms: int) -> TopicPartition:
        """Write records of these ages to a retry topic."""
        tp = TopicPartition(self.settings.topic(topics.retry(delay_s)), 0)
        there = self.reader.log.setdefault(tp, [])
        there += [Record(tp.topic, 0, len(there) + n, self.now_ms - age) for n, age in enumerate(ages_ms)]
        return tp

    async def due(self) -> list[int]:
        """Return the offsets of the due records."""
        return [received.record.offset for received in await self.delays.poll()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_each_topic_waits_for_its_own_time(world: World) -> None:
    world.write(0, 0)
    assert await world.due() == [0]
    tp = world.write(5, 5_000, 4_999, 10)
    assert await world.due() == [0]
    assert tp in world.reader.held, "the partition is not read while its head waits"
    assert await world.due() == []
    world.now_ms += 1
    assert await world.due() == [1]
    assert world.delays.heads()[tp] == 2, "what waits begins behind what has been taken"
    world.now_ms += 4_988
    assert await world.due() == []
    world.now_ms += 1
    assert await world.due() == [2]
    await world.due()
    assert tp not in world.reader.held


async def test_a_waiting_head_holds_up_only_its_partition(world: World) -> None:
    day = world.write(86_400, 1_000)
    world.write(5, 6_000)
    assert await world.due() == [0]
    world.write(5, 7_000, 8_000)
    assert await world.due() == [0, 1]
    assert world.reader.held == {day, TopicPartition(world.settings.topic(topics.retry(5)), 0)}


async def test_what_waits_is_forgotten_when_the_partitions_go(world: World) -> None:
    world.write(300, 1_000)
    assert await world.due() == []
    assert list(world.delays.heads().values()) == [0]
    await world.delays._revoked()
    assert world.delays.heads() == {}
    world.now_ms += 300_000
    assert await world.due() == []
    assert world.revokes == 1
