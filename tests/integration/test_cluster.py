"""What a real cluster tells of groups: how far they have read and who is in them; and the deletion of records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from core.errors import Unavailable
from core.kafka.admin import ensure_topics
from core.kafka.cluster import Cluster
from core.kafka.producer import Producer, Record
from schemas.topics import work_topic
from tests.support.kafka import own_prefix, patient_lookups
from tests.support.roles import settings_for


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    with patient_lookups():
        yield


async def test_lags_members_and_the_deletion_of_records(kafka: str, tmp_path: Path) -> None:
    settings, _ = settings_for(kafka, tmp_path, f"cluster-{time.time_ns()}.", kafka__request_timeout_s=60)
    async with own_prefix(settings):
        await ensure_topics(settings, [work_topic("q", level, partitions=2) for level in (0, 1)])
        cluster, producer = Cluster(settings, name="test"), Producer(settings, name="test")
        read, unread = (settings.topic(f"work.q.{level}") for level in ("online", "offline"))
        await producer.start()
        for number in range(10):
            for topic in (read, unread):
                await producer.send(topic, number % 2, Record(b"k", b"v"))
        await producer.stop()
        consumer = AIOKafkaConsumer(
            read,
            bootstrap_servers=kafka,
            group_id=read,
            client_id="reader",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=60_000,
        )
        await consumer.start()
        try:
            taken = await consumer.getone()
            await consumer.commit({TopicPartition(read, taken.partition): 3})
            first, second = await cluster.lags([(read, read), (unread, unread), (read, "nothing")])
            assert (first.waiting, first.read, first.ends) == (7, 3, {0: 5, 1: 5})
            assert (second.waiting, second.positions) == (10, {0: 0, 1: 0})
            members = await cluster.members([read, unread])
            [member] = members[read]
            assert (member.client, member.host) == ("reader", "127.0.0.1")
            assert sorted(member.partitions) == [TopicPartition(read, 0), TopicPartition(read, 1)]
            assert members[unread] == []
        finally:
            await consumer.stop()
        assert await cluster.delete_before({TopicPartition(unread, 0): 4}) == {TopicPartition(unread, 0): 4}
        [after] = await cluster.lags([(unread, unread)])
        assert (after.waiting, after.positions) == (6, {0: 4, 1: 0})
        assert await cluster.topics([read, f"{read}-missing"]) == {read: 2}
        async with cluster.reading([unread]) as lookup:
            assert await lookup.bounds([TopicPartition(unread, 0)]) == {TopicPartition(unread, 0): (4, 5)}


async def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    settings, _ = settings_for("127.0.0.1:1", tmp_path, "none.", kafka__request_timeout_s=2)
    cluster = Cluster(settings, name="test")
    for asked in (cluster.topics(["t"]), cluster.lags([("g", "t")]), cluster.members(["g"])):
        with pytest.raises(Unavailable):
            await asked
