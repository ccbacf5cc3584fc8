"""The Kafka door with a client that knows nothing of Headrace: librdkafka, and Confluent's own registry client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.codec import TASK
from schemas.framing import frame
from tests.support.markdown import blocks
from tests.support.records import task, task_id
from tests.support.site import Client, Site
from tests.support.waiting import until

EACH = 1_000
REPLIES = 20
WITHIN_S = 150
BODY = {"queue": "direct", "endpoint": "/v1/chat/completions"}
DeadLetter = tuple[bytes | None, bytes | None, dict[str, bytes]]


class Shop:
    """A producer of its own, and what it can see."""

    def __init__(self, site: Site, client: Client) -> None:
        self.site, self.client, self.settings = site, client, site.settings
        self.tasks, self.results = self.settings.topic("tasks.offline"), self.settings.topic("results.offline")
        self.replies = f"replies-{self.settings.kafka.topic_prefix}shop"
        self.registry = SchemaRegistryClient({"url": site.urls[0]})
        self._broker = {"bootstrap.servers": self.settings.kafka.bootstrap, "log_level": 0}
        self.producer = Producer({**self._broker, "linger.ms": 5, "message.max.bytes": 2_000_000})
        conf = {"auto.register.schemas": False, "use.latest.version": True}
        self.serialize = AvroSerializer(self.registry, conf=conf)
        self.deserialize = AvroDeserializer(self.registry)

    @contextmanager
    def reply_topic(self) -> Iterator[None]:
        """Have a topic for replies."""
        admin = AdminClient(self._broker)
        admin.create_topics([NewTopic(self.replies, 2)])[self.replies].result(30)
        try:
            yield
        finally:
            admin.delete_topics([self.replies])[self.replies].result(30)

    def avro(self, **members: Any) -> bytes:
        """Write a task with Confluent's serializer."""
        value = self.serialize({"level": 1, **members}, SerializationContext(self.tasks, MessageField.VALUE))
        assert isinstance(value, bytes)
        return value

    def write(self, *values: bytes, **given: Any) -> None:
        """Write records into the tasks topic."""
        for value in values:
            self.producer.produce(self.tasks, value, **given)
        assert self.producer.flush(60) == 0

    def read(self, topic: str, *, marks: Sequence[bytes] = (b"",), count: int | None = None) -> list[Any]:
        """Return a topic's records that hold one of these marks: so many, or all that are there now."""
        conf = {**self._broker, "enable.auto.commit": False, "group.id": f"shop-{time.time_ns()}"}
        consumer = Consumer(conf)
        found: list[Any] = []
        try:
            partitions = consumer.list_topics(topic, 60).topics[topic].partitions
            ends = {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), 60)[1] for number in partitions
            }
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
            give_up = time.monotonic() + WITHIN_S
            while len(found) < count if count is not None else not self._at(consumer, topic, ends):
                assert time.monotonic() < give_up, f"{len(found)} of {count} records in {topic}"
                came = [one for one in consumer.consume(500, timeout=0.1) if one.error() is None]
                found += [
                    one for one in came if any(mark in (one.key() or b"") + (one.value() or b"") for mark in marks)
                ]
        finally:
            consumer.close()
        return found

    def _at(self, consumer: Consumer, topic: str, ends: Mapping[int, int]) -> bool:
        places = consumer.position([TopicPartition(topic, number) for number in ends])
        return all(place.offset >= ends[place.partition] or not ends[place.partition] for place in places)

    def outcomes(self, topic: str, **named: Any) -> list[dict[str, Any]]:
        """Read results or rows as Confluent's deserializer does."""
        context = SerializationContext(topic, MessageField.VALUE)
        found = [self.deserialize(one.value(), context) for one in self.read(topic, **named)]
        return [dict(one) for one in found if one is not None]

    def dead_letters(self, count: int) -> list[DeadLetter]:
        """Read dead letters."""
        found = self.read(self.settings.topic("dead-letters"), count=count, marks=[b"bad-"])
        return [(one.key(), one.value(), dict(one.headers() or [])) for one in found]


@pytest.fixture(scope="module")
def shop(site: Site) -> Iterator[Shop]:
    opened = Shop(site, Client(site, "direct"))
    with opened.reply_topic():
        yield opened


class Bad(NamedTuple):
    """A record that must become a dead letter."""

    value: bytes | None
    field: str
    headers: dict[str, bytes] = {}  # noqa: RUF012 - nobody changes it


def bad(**changes: Any) -> bytes:
    return json.dumps({**BODY, "data": {"model": "sim"}, **changes}).encode()


def poison(shop: Shop) -> Iterator[Bad]:
    """Yield one of each kind."""
    good = shop.avro(**BODY, data=b'{"model":"sim"}')
    yield Bad(None, "value")
    yield Bad(b"", "value")
    yield Bad(good[:-2], "value")
    yield Bad(frame(4_242, good[5:]), "value")
    yield Bad(frame(3, good[5:]), "value")
    yield Bad(b"[1, 2]", "value")
    yield Bad(b"{nothing", "value")
    yield Bad(b"plain text", "value")
    yield Bad(b"<task/>", "content-type", {"content-type": b"text/xml"})
    yield Bad(b'{"specversion":"2","data":{}}', "specversion")
    yield Bad(bad(queue=7), "queue")
    yield Bad(bad(data=[1]), "data")
    yield Bad(bad(data=None), "data")
    yield Bad(bad(level=0), "level")
    yield Bad(bad(calback_url="http://127.0.0.1/"), "calback_url")
    yield Bad(bad(callback_url="ftp://x"), "callback_url")
    yield Bad(bad(owner="key-of-others"), "owner")
    yield Bad(bad(), "x-owner", {"x-owner": b"key-of-others"})
    yield Bad(bad(idempotency_key="a"), "idempotency-key", {"idempotency-key": b"b"})
    yield Bad(bad(reply_topic="secret"), "reply_topic")
    yield Bad(bad(reply_topic="replies-to-nobody"), "reply_topic")
    yield Bad(bad(timeout_ms=10**14), "timeout")
    yield Bad(bad(created_ms=int(time.time() * 1000) + 90_000_000), "created_ms")
    yield Bad(bad(id="TASK-1"), "id")
    yield Bad(bad(id=task_id(partition=77, level=1)), "id")
    yield Bad(bad(data={"text": "x" * 1_035_000}), "data")
    yield Bad(TASK.encode(task(level=1, data_ref={"uri": "a", "size": 1, "sha256": ""}, owner=None)), "data_ref")


async def test_a_stock_client_writes_tasks_and_reads_their_results(shop: Shop) -> None:
    bads = list(poison(shop))

    def write() -> None:
        for number in range(EACH):
            data = {"model": "sim", "messages": [{"role": "user", "content": f"q {number}"}]}
            named = {"trace_id": f"json-{number}", **({"reply_topic": shop.replies} if number < REPLIES else {})}
            shop.producer.produce(
                shop.tasks, json.dumps({**BODY, "data": data, **named}).encode(), key=f"customer-{number % 7}"
            )
            value = shop.avro(**BODY, data=json.dumps(data).encode(), trace_id=f"avro-{number}")
            shop.producer.produce(shop.tasks, value)
            if number % 10 == 0 and (at := number // 10) < len(bads):
                one = bads[at]
                shop.producer.produce(shop.tasks, one.value, key=b"bad-%d" % at, headers=list(one.headers.items()))
            shop.producer.poll(0)
        assert shop.producer.flush(60) == 0

    await asyncio.to_thread(write)
    ours = await asyncio.to_thread(shop.outcomes, shop.results, count=2 * EACH, marks=[b"json-", b"avro-"])
    scheduler = shop.site.roles["offline"]
    assert Counter(one["state"] for one in ours) == {"completed": 2 * EACH}, scheduler.log[-2_000:]
    assert len({one["id"] for one in ours}) == len({one["trace_id"] for one in ours}) == 2 * EACH
    assert {one["id"].split("-")[3] for one in ours} == {"K"}
    assert {one["status_code"] for one in ours} == {200}

    dead_letters = await asyncio.to_thread(shop.dead_letters, len(bads))
    found = {(key or b"").decode(): (value, told) for key, value, told in dead_letters}
    assert len(found) == len(bads) == len(dead_letters)
    for at, one in enumerate(bads):
        value, told = found[f"bad-{at}"]
        assert value == one.value or told["x-left-behind-bytes"] == b"%d" % len(one.value or b""), one
        assert (told["x-field"].decode(), told["x-topic"].decode()) == (one.field, shop.tasks), told
        assert told["x-reason"]
        assert told["x-partition"].isdigit()
        assert told["x-offset"].isdigit()

    replies = await asyncio.to_thread(shop.outcomes, shop.replies, count=REPLIES)
    assert {one["trace_id"] for one in replies} == {f"json-{number}" for number in range(REPLIES)}
    assert {one["id"] for one in replies} <= {one["id"] for one in ours}


async def test_a_task_of_kafka_is_seen_over_http_like_any_other(shop: Shop) -> None:
    event = {
        "specversion": "1.0",
        "id": "e",
        "source": "/shop",
        "type": "order",
        "data": {
            **BODY,
            "data": '{"model":"sim","messages":[],"sim":{"key":"seen","fail_times":1}}',
            "trace_id": "seen",
            "timeout": 600,
        },
    }
    await asyncio.to_thread(shop.write, json.dumps(event).encode())
    await shop.client.submit(level=1, members={"trace_id": "put"})

    async def seen() -> dict[str, dict[str, Any]]:
        async with shop.client.call("GET", "/v1/tasks?limit=100") as answer:
            listed = await answer.json()
        return {one["trace_id"]: one for one in listed["data"] if one["trace_id"] in ("put", "seen")}

    mine = await until(
        seen,
        lambda found: {name: one["status"] for name, one in found.items()} == {"seen": "completed", "put": "completed"},
    )
    whole = await shop.client.show(mine["seen"]["id"])
    assert (whole["status"], whole["response_mode"], whole["queue"]) == ("succeeded", "callback", "direct")
    assert whole["expire_time"] - whole["start_time"] == 600_000
    assert whole["data"]["sim"]["key"] == "seen"
    assert shop.site.arrivals("seen") == 2  # the second time with the body out of the same record


async def test_duplicates_meet_whatever_partition_they_were_written_to(shop: Shop) -> None:
    value = json.dumps({**BODY, "data": {"model": "sim", "messages": []}, "trace_id": "duplicate"}).encode()
    count = shop.settings.kafka.partitions

    def write() -> None:
        for partition in range(count):
            shop.producer.produce(shop.tasks, value, partition=partition, headers=[("idempotency-key", b"one")])
        assert shop.producer.flush(60) == 0

    async def rows() -> list[dict[str, Any]]:
        found = await asyncio.to_thread(shop.outcomes, shop.settings.topic("status.offline"), marks=[b"duplicate"])
        return list({one["id"]: one for one in found if one["trace_id"] == "duplicate"}.values())

    await asyncio.to_thread(write)
    found = await until(rows, lambda rows: len(rows) == count and "completed" in {one["state"] for one in rows})
    firsts = [one["id"] for one in found if one["duplicate_of"] is None]
    assert len(firsts) == 1
    assert {one["duplicate_of"] for one in found} == {None, firsts[0]}


async def test_an_id_is_taken_once(shop: Shop) -> None:
    partition = shop.settings.kafka.partitions - 1
    one = task_id(partition=partition, level=1)
    value = json.dumps({**BODY, "data": {"model": "sim", "messages": []}, "trace_id": "given", "id": one}).encode()

    def write() -> None:
        for key in (b"first", b"second"):
            shop.producer.produce(shop.tasks, value, key=key, partition=partition)
        assert shop.producer.flush(60) == 0

    async def refused() -> list[Any]:
        found = await asyncio.to_thread(shop.read, shop.settings.topic("dead-letters"))
        return [letter for letter in found if letter.value() == value]

    await asyncio.to_thread(write)
    [dead_letter] = await until(refused)
    assert dead_letter.key() == b"second"
    assert dict(dead_letter.headers())["x-field"] == b"id"


async def test_the_examples_of_the_page_work(shop: Shop) -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/produce-to-kafka.md").read_text(encoding="utf-8")
    program = "\n".join(block.text for block in blocks(page) if block.language == "python")
    for shown, real in (
        ("127.0.0.1:9092", shop.settings.kafka.bootstrap),
        ("http://127.0.0.1:8080", shop.site.urls[0]),
        ('"headrace.', f'"{shop.settings.kafka.topic_prefix}'),
    ):
        assert shown in program
        program = program.replace(shown, real)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[1:3] for line in done.stdout.splitlines()] == [["completed", "200"]] * 4
