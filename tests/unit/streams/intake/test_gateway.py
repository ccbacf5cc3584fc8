"""Admission of a task record: its queue, its partition and its reply topic."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Self

import pytest
from aiokafka.errors import MessageSizeTooLargeError, RequestTimedOutError

from core.errors import DeliveryFailed, Unavailable
from core.kafka.producer import Record
from core.settings.models import Settings
from schemas.partitioning import FORWARDED, home_partition, key_spread
from streams.intake import gateway, reply_topics
from streams.intake.decode import InvalidRecord, Submission
from tests.support.intake import NOW_S, OWNER, QueueRegistry, TransactionDouble, admit, intake, message
from tests.support.records import queue, task


async def test_a_queue_is_registered_as_its_first_task_over_http_would() -> None:
    queues = QueueRegistry()
    found = await admit(intake(queues), message())
    assert isinstance(found, Submission)
    assert queues.registered == [("chat", "/v1/x", OWNER)]


async def test_a_queue_that_cannot_be_registered_is_a_reason_and_no_fault() -> None:
    for made, words in (
        (intake(QueueRegistry(full=True)), "kafka.max_queues"),
        (intake(QueueRegistry(), ingress={"auto_register": False}), "not registered"),
    ):
        found = await admit(made, message())
        assert isinstance(found, InvalidRecord)
        assert found.field == "queue"
        assert words in found.reason


async def test_a_task_of_an_api_waits_for_the_record_of_its_queue() -> None:
    queues = QueueRegistry()
    made = intake(queues, ingress={"auto_register": False})
    one = Submission("TASK", task(), 0, None)
    waiting = asyncio.create_task(made.prepare([one]))
    await asyncio.sleep(0)
    assert not waiting.done()
    queues.known["chat"] = queue("chat")
    await waiting
    assert made.admit(one, message(), TransactionDouble(), now_ms=0) is one  # type: ignore[arg-type]  # a double


async def test_a_direct_task_waits_for_the_record_of_a_new_queue() -> None:
    queues = QueueRegistry()
    made = intake(queues, ingress={"auto_register": False})
    waiting = asyncio.create_task(admit(made, message()))
    await asyncio.sleep(0)
    queues.known["chat"] = queue("chat")
    assert isinstance(await waiting, Submission)


async def test_unknown_queue_names_delay_a_level_only_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def noted(_: object, name: str, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(gateway.TaskIntake, "_wait_until_registered", noted)
    made = intake(QueueRegistry(), ingress={"auto_register": False})
    for number in range(20):
        assert isinstance(await admit(made, message(queue=f"unknown-{number}")), InvalidRecord)
    assert waits == [gateway.NEW_QUEUE_TIMEOUT_S]


async def test_an_id_of_another_record_is_refused() -> None:
    found = await admit(intake(QueueRegistry("chat")), message(), TransactionDouble(id_in_use=True))
    assert isinstance(found, InvalidRecord)
    assert found.field == "id"


async def test_a_keyed_task_is_forwarded_once_to_the_partition_of_its_key() -> None:
    made = intake(QueueRegistry("chat"))
    home = home_partition("chat", key_spread(OWNER, "key"), width=0, partitions=6)
    away = (home + 1) % 6
    transaction = TransactionDouble()
    came = message(partition=away, idempotency_key="key", headers=[("x-owner", OWNER.encode())])
    assert await admit(made, came, transaction) is None
    [again] = transaction.records["headrace.tasks.online", home]
    assert (again.key, again.value, again.timestamp_ms) == (b"k", came.value, int(NOW_S * 1000))
    assert again.headers == [("x-owner", OWNER.encode()), (FORWARDED, b"%d/9" % away)]
    assert transaction.reasons["forwarded"] == 1
    there = message(partition=away, idempotency_key="key", headers=again.headers)
    assert isinstance(await admit(made, there), Submission)
    assert isinstance(await admit(made, message(partition=home, idempotency_key="key")), Submission)
    large = [("x-much", b"x" * 5_000)]
    assert isinstance(await admit(made, message(partition=away, idempotency_key="key", headers=large)), Submission)


class Cluster:
    """The broker and the producer as replies see them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **topics: int) -> None:
        self.topics, self.asked, self.now = topics, 0, 0.0
        self.written: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.healthy = True
        monkeypatch.setattr(reply_topics, "admin", lambda _: self)
        monkeypatch.setattr(reply_topics, "partition_counts", self._counts)
        monkeypatch.setattr(reply_topics, "Producer", lambda *_, **__: self)

    async def _counts(self, _: object, names: list[str]) -> dict[str, int]:
        self.asked += 1
        return {name: self.topics[name] for name in names if name in self.topics}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close nothing."""

    async def start(self) -> None:
        """Start nothing."""

    async def stop(self) -> None:
        """Stop nothing."""

    async def send_batch(self, records: dict[tuple[str, int], list[Record]]) -> None:
        if self.error is not None:
            raise Unavailable from self.error
        self.written += [place for place, several in records.items() for _ in several]

    def reply_topics(self) -> reply_topics.ReplyTopics:
        return reply_topics.ReplyTopics(Settings(), name="t", clock=lambda: self.now)


def reply_to(count: int) -> list[Record]:
    return [Record(b"TASK-%d" % number, b"r") for number in range(count)]


async def test_a_reply_topic_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    made = intake(QueueRegistry("chat"), direct={"reply_topics": ["answers"]})
    found = await admit(made, message(reply_topic="answers"))
    assert isinstance(found, InvalidRecord)
    assert found.field == "reply_topic"
    cluster.topics["answers"] = 2
    made.reply_topics._seen.clear()
    assert isinstance(await admit(made, message(reply_topic="answers")), Submission)


async def test_replies_are_spread_by_task_and_what_is_not_there_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, answers=2)
    asked = cluster.reply_topics()
    assert await asked.send({"answers": reply_to(20), "gone": reply_to(3)}) == 3
    assert set(cluster.written) == {("answers", 0), ("answers", 1)}
    assert len(cluster.written) == 20
    await asked.refresh(["answers", "gone"])
    assert cluster.asked == 1
    cluster.now = reply_topics.MISSING_TTL_S
    cluster.topics["gone"] = 1
    await asked.refresh(["answers", "gone"])
    assert (cluster.asked, asked.partition_count("gone")) == (2, 1)
    await asked.close()


async def test_what_a_topic_never_takes_is_dropped_and_what_kafka_cannot_now_ends_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(monkeypatch, answers=2)
    asked = cluster.reply_topics()
    cluster.error = MessageSizeTooLargeError()
    assert await asked.send({"answers": reply_to(2)}) == 2
    cluster.error = RequestTimedOutError()
    with pytest.raises(DeliveryFailed):
        await asked.send({"answers": reply_to(2)})
    del cluster.topics["answers"]
    assert await asked.send({"answers": reply_to(2)}) == 2


async def test_only_new_results_go_to_reply_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, answers=1)
    made = intake(QueueRegistry("chat"))
    transaction: Any = TransactionDouble()
    for name, reply, record in (
        ("a", "answers", Record(b"a", b"r")),
        ("b", None, Record(b"b", b"r")),
        ("c", "answers", None),
    ):
        transaction.results[0, name] = SimpleNamespace(record=record)
        transaction.rows[0, name] = {"reply_topic": reply}
    await made.reply(transaction)
    assert cluster.written == [("answers", 0)]
    assert transaction.reasons["reply_failed"] == 0
