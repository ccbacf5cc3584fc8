"""Records of other producers in a tasks topic: compressed, in transactions, broken. None of them stalls a level."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.clock import Deadline
from core.kafka.cluster import Cluster
from core.kafka.log_reader import LogReader
from core.kafka.producer import Record
from core.kafka.topic_follower import TopicFollower
from dispatcher.group_consumer import GroupConsumer
from schemas import topics
from schemas.codec import TASK
from schemas.headers import headers
from tests.support.java_producer import needs_java, written_by_java
from tests.support.kafka import patient_lookups
from tests.support.outsiders import outsider, transactional, write
from tests.support.record_batches import HOSTILE, batch, produce, record
from tests.support.records import task
from tests.support.scheduler_bench import Bench, scheduler_bench
from tests.support.scheduler_probe import QUEUE
from tests.support.waiting import eventually_async, until

CODECS = ("gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
async def bench(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with scheduler_bench(kafka, tmp_path_factory.mktemp("outside")) as running:
        running.role.kept = False  # any exit here is a failure
        with patient_lookups():
            yield running


def tasks(bench: Bench, count: int = 1, partition: int = 0) -> dict[str, Record]:
    """Make task records as an API writes them."""
    made: dict[str, Record] = {}
    now_ms = time.time_ns() // 1_000_000
    for _ in range(count):
        one = bench.probe.new_id(partition)
        value = TASK.encode(task(id=one, queue=QUEUE, level=0, created_ms=now_ms, data=b'{"a":"' + b"x" * 500 + b'"}'))
        made[one] = Record(one.encode(), value, headers(kind="task", ce_id=one, at_ms=now_ms))
    return made


def place(bench: Bench, partition: int = 0) -> TopicPartition:
    return TopicPartition(bench.settings.topic(topics.tasks(0)), partition)


async def lag(bench: Bench) -> int:
    """Return how much of the tasks topic the scheduler has not committed."""
    group = bench.settings.topic("scheduler.online")
    [found] = await Cluster(bench.settings, name="test").lags([(group, place(bench).topic)])
    return found.waiting


async def goes_on(bench: Bench) -> None:
    """Check that the scheduler accepts a task in each partition and commits everything."""
    made = await bench.probe.submit(bench.settings.kafka.partitions)
    await eventually_async(lambda: all(bench.probe.work[one] for one in made), what="work of our own tasks")
    assert await until(lambda: lag(bench), lambda waiting: waiting == 0) == 0
    assert "never delivered" not in bench.role.log
    assert bench.role.process is not None
    assert bench.role.process.poll() is None


@pytest.mark.parametrize("codec", CODECS)
async def test_tasks_in_every_codec_are_run(bench: Bench, codec: str) -> None:
    made = tasks(bench, 20)
    producer = outsider(bench.settings.kafka.bootstrap, compression__type=codec, linger__ms=50)
    offsets = await asyncio.to_thread(write, producer, *place(bench), [*made.values()])
    await eventually_async(lambda: all(bench.probe.work[one] for one in made), what=f"work of {codec} records")
    await goes_on(bench)
    # The other readers: look-ups, tails, members of groups.
    lookup = LogReader(bench.settings, name="test")
    await lookup.open([place(bench).topic])
    found = [await lookup.read(place(bench), offset) for offset in offsets]
    assert [one and one.key for one in found] == [one.encode() for one in made]
    await lookup.close()
    assert set(made) <= {key.decode() for key in await tailed(bench)}
    assert set(made) <= {key.decode() for key in await taken(bench, f"group-{codec}")}


async def tailed(bench: Bench) -> list[bytes]:
    """Read the tasks topic as the ingresses read theirs, up to its end."""
    keys: list[bytes] = []
    tail = TopicFollower(
        bench.settings,
        name="test",
        topics=[place(bench).topic],
        handle=lambda _, records: keys.extend(one.key for one in records if one.key),
    )
    await tail.open()
    async with asyncio.timeout(60):
        await tail.wait_caught_up()
    await tail.close()
    return keys


async def taken(bench: Bench, group: str) -> list[bytes]:
    """Read the tasks topic as a member of a group, up to where it can be committed as a whole."""

    async def nothing() -> None:
        """Settle nothing."""

    reader = GroupConsumer(
        bench.settings, name="test", group=bench.settings.topic(group), topics=[place(bench).topic], on_revoke=nothing
    )
    cluster, keys = Cluster(bench.settings, name="test"), []

    async def waiting() -> int:
        for one in await reader.poll(500):
            keys.append(one.record.key or b"")
            one.tracker.completed(one.record.offset)
        await reader.commit()
        [found] = await cluster.lags([(bench.settings.topic(group), place(bench).topic)])
        return found.waiting if found.read else 1

    assert await until(waiting, lambda left: left == 0) == 0
    await reader.close(Deadline(10))
    return keys


@needs_java
async def test_a_transaction_of_the_java_producer(bench: Bench, tmp_path: Path) -> None:
    given_up, committed = tasks(bench, 5), tasks(bench, 20)
    for some, end in ((given_up, "abort"), (committed, "commit")):
        written = [*some.values()]
        kafka = bench.settings.kafka.bootstrap
        await asyncio.to_thread(written_by_java, tmp_path, kafka, place(bench), written, codec="snappy", end=end)
    await eventually_async(
        lambda: all(bench.probe.work[one] for one in committed), what="work of what Java has written"
    )
    await goes_on(bench)
    assert not any(bench.probe.work[one] for one in given_up)
    assert not {*given_up} & {key.decode() for key in await tailed(bench)}


async def letters(bench: Bench, offset: int) -> list[Any]:
    return [
        letter
        for letter in bench.probe.dead_letters
        if (told := dict(letter.headers))["x-offset"] == b"%d" % offset and told["x-partition"] == b"1"
    ]


async def test_a_header_name_that_is_not_utf_8_becomes_a_dead_letter(bench: Bench) -> None:
    around = tasks(bench, 2, partition=1)
    first, last = around.values()
    raw = batch(
        [
            record(0, first.key, first.value, [(name.encode(), content) for name, content in first.headers]),
            record(1, b"mine", b"{}", [(b"caf\xe9", b"1")]),
            record(2, last.key, last.value, [(name.encode(), content) for name, content in last.headers]),
        ]
    )
    offset = await produce(bench.settings.kafka.bootstrap, place(bench, 1), raw)
    await eventually_async(lambda: all(bench.probe.work[one] for one in around), what="work of its neighbours")
    [letter] = await until(lambda: letters(bench, offset + 1))
    told = dict(letter.headers)
    assert (letter.key, letter.value, told["caf\\xe9"]) == (b"mine", b"{}", b"1")
    assert (told["x-topic"], b"not UTF-8" in told["x-reason"]) == (place(bench).topic.encode(), True)
    assert b"mine" not in await tailed(bench)
    await goes_on(bench)


async def test_hostile_batches_that_the_broker_accepts_delay_no_reader(bench: Bench) -> None:
    offsets: dict[str, int] = {}
    for name, raw in HOSTILE.items():
        with contextlib.suppress(KafkaError, TimeoutError):
            offsets[name] = await produce(bench.settings.kafka.bootstrap, place(bench, 1), raw)
    assert offsets, "the broker refused all of them; some are known to be taken"
    await goes_on(bench)
    for offset in offsets.values():
        assert await until(lambda: near(bench, offset))  # noqa: B023
    await tailed(bench)
    await taken(bench, "group-hostile")


async def near(bench: Bench, offset: int) -> list[Any]:
    """Return the letters of the three offsets of a batch."""
    return [letter for n in range(3) for letter in await letters(bench, offset + n)]


async def test_transactions_are_read_when_they_are_committed(bench: Bench) -> None:
    given_up, open_, committed = (tasks(bench, 3) for _ in range(3))
    producer = await asyncio.to_thread(transactional, bench.settings.kafka.bootstrap, f"{place(bench).topic}-one")
    producer.begin_transaction()
    await asyncio.to_thread(write, producer, *place(bench), [*given_up.values()])
    await asyncio.to_thread(producer.abort_transaction)
    producer.begin_transaction()
    await asyncio.to_thread(write, producer, *place(bench), [*committed.values()])
    await asyncio.to_thread(producer.commit_transaction)
    await eventually_async(lambda: all(bench.probe.work[one] for one in committed), what="work of what is committed")
    await goes_on(bench)
    # An open one holds back what was written behind it, and nothing else: starts and readers go on.
    producer.begin_transaction()
    [first, *_] = await asyncio.to_thread(write, producer, *place(bench), [*open_.values()])
    behind, beside = tasks(bench), tasks(bench, partition=1)
    mine = outsider(bench.settings.kafka.bootstrap)
    [offset] = await asyncio.to_thread(write, mine, *place(bench), [*behind.values()])
    await asyncio.to_thread(write, mine, *place(bench, 1), [*beside.values()])
    await eventually_async(lambda: all(bench.probe.work[one] for one in beside), what="work of another partition")
    seen = {key.decode() for key in await tailed(bench)}
    assert set(committed) <= seen
    assert not seen & {*given_up, *open_}
    held = await Cluster(bench.settings, name="test").held({place(bench).topic: 2})
    assert held.keys() == {place(bench)}
    assert held[place(bench)] >= len(open_) + 1
    lookup = LogReader(bench.settings, name="test")
    await lookup.open([place(bench).topic])
    assert (await lookup.bounds([place(bench)]))[place(bench)][1] <= first
    assert await lookup.read(place(bench), first) is None
    [key] = behind
    found = [await lookup.read(place(bench), offset), await lookup.find(place(bench), key.encode(), from_ms=0)]
    assert [one and one.offset for one in found] == [offset, offset], "what stands behind it is certain"
    await lookup.close()
    await asyncio.to_thread(producer.commit_transaction)
    await eventually_async(
        lambda: all(bench.probe.work[one] for one in {**open_, **behind}), what="the rest of the work"
    )
    # A mark at the very end: nothing follows it for longer than the scheduler's patience with what is not delivered.
    assert await until(lambda: lag(bench), lambda waiting: waiting == 0) == 0
    assert not any(bench.probe.work[one] for one in given_up)
    await goes_on(bench)
