"""Reading single records by their position."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition

from core.kafka.admin import ensure_topics
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer, Record
from schemas import topics
from tests.support.kafka import own_prefix, patient_lookups
from tests.support.roles import settings_for

COUNT = 40


@pytest.fixture(scope="module")
async def filled(
    kafka: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[LogReader, TopicPartition]]:
    """A partition of some records, written in batches of different size."""
    settings, _ = settings_for(
        kafka, tmp_path_factory.mktemp("lookup"), f"lookup-{time.time_ns()}.", kafka__partitions=1
    )
    declared = {topic.name: topic for topic in topics.declared(partitions=1)}
    tp = TopicPartition(settings.topic(topics.tasks(0)), 0)
    producer, lookup = Producer(settings, name="test"), LogReader(settings, name="test")
    async with own_prefix(settings):
        await ensure_topics(settings, [declared[topics.TASKS + ".online"]])
        await producer.start()
        records = [Record(b"%d" % n, b"v" * n * 100, [], 1_000 + n) for n in range(COUNT)]
        for begin, end in ((0, 1), (1, 30), (30, COUNT)):
            await producer.send_batch({(tp.topic, 0): records[begin:end]})
        await producer.stop()
        with patient_lookups():
            await lookup.open([tp.topic])
            yield lookup, tp
            await lookup.close()


async def test_look_ups_side_by_side(filled: tuple[LogReader, TopicPartition]) -> None:
    lookup, tp = filled
    wanted = [n % COUNT for n in range(400)]
    found = await asyncio.gather(*(lookup.read(tp, offset) for offset in wanted))
    assert [one and one.key for one in found] == [b"%d" % n for n in wanted]
    assert [one and one.offset for one in found] == wanted


@pytest.mark.parametrize("offset", [COUNT, 10_000])
async def test_what_is_not_there(filled: tuple[LogReader, TopicPartition], offset: int) -> None:
    lookup, tp = filled
    assert await lookup.read(tp, offset) is None


async def test_search_by_key(filled: tuple[LogReader, TopicPartition]) -> None:
    lookup, tp = filled
    found = await lookup.find(tp, b"37", from_ms=0)
    assert found is not None
    assert (found.offset, len(found.value or b"")) == (37, 3_700)
    assert await lookup.find(tp, b"nobody", from_ms=0) is None
    assert await lookup.find(tp, b"3", from_ms=1_030) is None
    assert await lookup.find(tp, b"37", from_ms=9_000) is None


async def test_offsets(filled: tuple[LogReader, TopicPartition]) -> None:
    lookup, tp = filled
    assert await lookup.offset_at(tp, 1_007) == 7
    assert await lookup.offset_at(tp, 9_000) is None
    assert await lookup.bounds([tp]) == {tp: (0, COUNT)}
