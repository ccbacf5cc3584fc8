"""The Kafka door with a client that knows nothing of Headrace: librdkafka, and Confluent's own registry client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from core.settings import Settings
from schemas.codec import TASK
from schemas.framing import frame
from tests.support.markdown import blocks
from tests.support.ports import free_port
from tests.support.records import task, task_id
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import eventually_async

EACH = 1_000
WITHIN_S = 150
EVERY = 1_000_000
HEADERS = {"Authorization": "Bearer hr-local"}
BODY = {"queue": "direct", "endpoint": "/v1/chat/completions"}
REPLIES = "replies-of-shop"
Letter = tuple[bytes | None, bytes | None, dict[str, bytes]]


class Shop:
    """A producer of its own, and what it can see."""

    def __init__(self, settings: Settings, url: str, scheduler: Role, simulator: Simulator) -> None:
        self.settings, self.url, self.scheduler, self.simulator = settings, url, scheduler, simulator
        self.tasks, self.results = settings.topic("tasks.offline"), settings.topic("results.offline")
        self.registry = SchemaRegistryClient({"url": url})
        broker = {"bootstrap.servers": settings.kafka.bootstrap, "log_level": 0}
        self.producer = Producer({**broker, "linger.ms": 5, "message.max.bytes": 2_000_000})
        conf = {"auto.register.schemas": False, "use.latest.version": True}
        self.serialize = AvroSerializer(self.registry, conf=conf)
        self.deserialize = AvroDeserializer(self.registry)

    def avro(self, **members: Any) -> bytes:
        """Write a task with Confluent's serializer."""
        value = self.serialize({"level": 1, **members}, SerializationContext(self.tasks, MessageField.VALUE))
        assert isinstance(value, bytes)
        return value

    def read(self, topic: str, count: int, *, marks: Sequence[bytes] = (b"",), within_s: float = WITHIN_S) -> list[Any]:
        """Return a topic's first records that hold one of these marks, at least so many."""
        conf = {"bootstrap.servers": self.settings.kafka.bootstrap, "log_level": 0, "enable.auto.commit": False}
        consumer = Consumer({**conf, "group.id": f"shop-{time.time_ns()}", "auto.offset.reset": "earliest"})
        found: list[Any] = []
        try:
            consumer.subscribe([topic])
            give_up = time.monotonic() + within_s
            while len(found) < count and time.monotonic() < give_up:
                came = [one for one in consumer.consume(500, timeout=0.5) if one.error() is None]
                found += [
                    one for one in came if any(mark in (one.key() or b"") + (one.value() or b"") for mark in marks)
                ]
        finally:
            consumer.close()
        return found

    def outcomes(self, topic: str, count: int, **named: Any) -> list[dict[str, Any]]:
        """Read results as Confluent's deserializer does."""
        context = SerializationContext(topic, MessageField.VALUE)
        found = [self.deserialize(one.value(), context) for one in self.read(topic, count, **named)]
        return [dict(one) for one in found if one is not None]

    def letters(self, count: int) -> list[Letter]:
        """Read dead letters."""
        found = self.read(self.settings.topic("dead-letters"), count, marks=[b"bad-"])
        return [(one.key(), one.value(), dict(one.headers() or [])) for one in found]


@pytest.fixture(scope="module")
async def shop(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("direct")
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka, folder, f"direct-{time.time_ns()}.", upstream__urls=[simulator.url],
            direct__reply_topics=["replies-*"], direct__secrets=["0123456789abcdef"], streams__session_timeout_s=12,
        )  # fmt: skip
        await apply_topics(settings)
        admin = AdminClient({"bootstrap.servers": kafka})
        with ExitStack() as stack:
            port = free_port()
            roles = [("ingress", "--port", str(port)), ("streams", "--level", "offline"), ("dispatcher",)]
            started = [
                stack.enter_context(running(*arguments, env=env, log=folder / f"{arguments[0]}.log"))
                for arguments in roles
            ]
            url = f"http://127.0.0.1:{port}"
            await asyncio.to_thread(admin.create_topics([NewTopic(REPLIES, 2)])[REPLIES].result, 30)
            await eventually_async(lambda: answers(f"{url}/subjects"), within_s=60, what="the registry")
            yield Shop(settings, url, started[1], simulator)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


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
            named = {"trace_id": f"json-{number}", **({"reply_topic": REPLIES} if number < 20 else {})}
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
    ours = await asyncio.to_thread(shop.outcomes, shop.results, 2 * EACH, marks=[b"json-", b"avro-"])
    assert Counter(one["state"] for one in ours) == {"completed": 2 * EACH}, shop.scheduler.log[-2_000:]
    assert len({one["id"] for one in ours}) == len({one["trace_id"] for one in ours}) == 2 * EACH
    assert {one["id"].split("-")[3] for one in ours} == {"K"}
    assert {one["status_code"] for one in ours} == {200}

    letters = await asyncio.to_thread(shop.letters, len(bads))
    found = {(key or b"").decode(): (value, told) for key, value, told in letters}
    assert len(found) == len(bads) == len(letters)
    for at, one in enumerate(bads):
        value, told = found[f"bad-{at}"]
        assert value == one.value or told["x-left-behind-bytes"] == b"%d" % len(one.value or b""), one
        assert (told["x-field"].decode(), told["x-topic"].decode()) == (one.field, shop.tasks), told
        assert told["x-reason"]
        assert told["x-partition"].isdigit()
        assert told["x-offset"].isdigit()

    replies = await asyncio.to_thread(shop.outcomes, REPLIES, 20)
    assert {one["trace_id"] for one in replies} == {f"json-{number}" for number in range(20)}
    assert {one["id"] for one in replies} <= {one["id"] for one in ours}


async def test_a_task_of_kafka_is_seen_over_http_like_any_other(shop: Shop) -> None:
    event = {"specversion": "1.0", "id": "e", "source": "/shop", "type": "order", "data": {
        **BODY, "data": '{"model":"sim","messages":[],"sim":{"key":"seen","fail_times":1}}', "trace_id": "seen",
        "timeout": 600,
    }}  # fmt: skip
    await asyncio.to_thread(write_one, shop, json.dumps(event).encode())
    async with httpx.AsyncClient(base_url=shop.url, headers=HEADERS, timeout=30) as client:
        put = {**BODY, "data": {"model": "sim", "messages": []}, "level": 1, "trace_id": "put"}
        give_up = time.monotonic() + 60
        while (await client.post("/v1/queue/put", json=put)).status_code == 503:  # it has not reached Kafka yet
            assert time.monotonic() < give_up
            await asyncio.sleep(0.1)
        while True:
            listed = (await client.get("/v1/tasks", params={"limit": 100})).json()
            mine = [one for one in listed.get("data", ()) if one.get("trace_id") in ("put", "seen")]
            mine.sort(key=lambda one: str(one["trace_id"]), reverse=True)
            if {one["trace_id"]: one["status"] for one in mine} == {"seen": "completed", "put": "completed"}:
                break
            assert time.monotonic() < give_up, listed
            await asyncio.sleep(0.1)
        whole = (await client.get(f"/v1/queue/{mine[0]['id']}")).json()
    assert (whole["status"], whole["response_mode"], whole["queue"]) == ("succeeded", "callback", "direct")
    assert whole["expire_time"] - whole["start_time"] == 600_000
    assert whole["data"]["sim"]["key"] == "seen"
    assert shop.simulator.stats.keys["seen"].arrivals == 2  # the second time with the body out of the same record


async def test_twins_meet_whatever_partition_they_were_written_to(shop: Shop) -> None:
    value = json.dumps({**BODY, "data": {"model": "sim", "messages": []}, "trace_id": "twin"}).encode()

    def write() -> None:
        for partition in range(shop.settings.kafka.partitions):
            shop.producer.produce(shop.tasks, value, partition=partition, headers=[("idempotency-key", b"one")])
        assert shop.producer.flush(60) == 0

    await asyncio.to_thread(write)
    row = shop.settings.topic("status.offline")
    twins: dict[str, Any] = {}
    give_up = time.monotonic() + 60
    while len(twins) < shop.settings.kafka.partitions or not any(one["state"] == "completed" for one in twins.values()):
        assert time.monotonic() < give_up, twins
        rows = await asyncio.to_thread(shop.outcomes, row, EVERY, within_s=6)
        twins = {one["id"]: one for one in rows if one["trace_id"] == "twin"}
    firsts = [one["id"] for one in twins.values() if one["duplicate_of"] is None]
    assert len(firsts) == 1
    assert {one["duplicate_of"] for one in twins.values()} == {None, firsts[0]}


async def test_an_id_is_taken_once(shop: Shop) -> None:
    one = task_id(partition=2, level=1)
    value = json.dumps({**BODY, "data": {"model": "sim", "messages": []}, "trace_id": "given", "id": one}).encode()

    def write() -> None:
        for key in (b"first", b"second"):
            shop.producer.produce(shop.tasks, value, key=key, partition=2)
        assert shop.producer.flush(60) == 0

    await asyncio.to_thread(write)
    give_up = time.monotonic() + 60
    while True:
        letters = await asyncio.to_thread(shop.read, shop.settings.topic("dead-letters"), EVERY, within_s=6)
        mine = [letter for letter in letters if letter.value() == value]
        if mine:
            break
        assert time.monotonic() < give_up
    [letter] = mine
    assert letter.key() == b"second"
    assert dict(letter.headers())["x-field"] == b"id"


def write_one(shop: Shop, value: bytes) -> None:
    shop.producer.produce(shop.tasks, value)
    assert shop.producer.flush(60) == 0


async def test_the_examples_of_the_page_work(shop: Shop) -> None:
    page = (Path(__file__).parents[2] / "docs/kafka.md").read_text(encoding="utf-8")
    program = "\n".join(block.text for block in blocks(page) if block.language == "python")
    for shown, real in (
        ("127.0.0.1:9092", shop.settings.kafka.bootstrap),
        ("http://127.0.0.1:8080", shop.url),
        ('"headrace.', f'"{shop.settings.kafka.topic_prefix}'),
    ):
        assert shown in program
        program = program.replace(shown, real)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[1:3] for line in done.stdout.splitlines()] == [["completed", "200"]] * 4
