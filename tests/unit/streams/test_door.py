"""What the Kafka door does with a task that was read: what it needs, where it belongs, whom its result is told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self

import pytest
from aiokafka.errors import MessageSizeTooLargeError, RequestTimedOutError

from core.errors import DeliveryFailed, TooMany, Unavailable
from core.kafka.producer import Record
from core.settings import Settings
from schemas.records import Queue
from schemas.slices import home_partition, queue_number, stable_hash
from streams import replies
from streams.direct import FORWARDED
from streams.door import Door
from streams.inputs import Poison, Submission
from tests.support.records import task

OWNER = "key-d97332b71bf9"
NOW_S = 1_795_000_000.0
Headers = list[tuple[str, bytes]]


class Queues:
    """A directory that registers as it is told."""

    def __init__(self, *names: str, full: bool = False) -> None:
        self.known = {name: queue(name) for name in names}
        self.full = full
        self.registered: list[tuple[str, Any, Any]] = []

    def get(self, name: str) -> Queue | None:
        return self.known.get(name)

    async def register(self, _: object, name: str, *, endpoint: str | None, owner: str | None) -> Queue:
        if self.full:
            raise TooMany("500 queues are registered and kafka.max_queues allows no more", field="queue")
        self.registered.append((name, endpoint, owner))
        return self.known.setdefault(name, queue(name))


class Fold:
    """The part of a fold that the door touches."""

    def __init__(self, *, taken: bool = False) -> None:
        self.records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.notes: Counter[str] = Counter()
        self.results: dict[Any, Any] = {}
        self.rows: dict[Any, Any] = {}
        self._taken = taken

    def taken(self, *_: object) -> bool:
        return self._taken


def queue(name: str, **changes: Any) -> Queue:
    base: Any = {
        "name": name, "number": queue_number(name), "endpoint": None, "owner": None, "created_ms": 0, "width": 0,
        "work_partitions": 4, "served_by": "dispatcher", "explicit": False, "paused": False, "concurrency": None,
        "retention_ms": None, "max_waiting": None,
    }  # fmt: skip
    return {**base, **changes}  # type: ignore[typeddict-item]


def door(queues: Queues, **sections: Any) -> Door:
    settings = Settings.model_validate(sections)
    made: Any = Door(settings, 0, producer=None, queues=queues)  # type: ignore[arg-type]  # doubles
    made._believed = replace(made._believed, now_ms=None)
    return made  # type: ignore[no-any-return]


def message(*, partition: int = 0, headers: Headers | None = None, **members: Any) -> Any:
    value = json.dumps({"queue": "chat", "endpoint": "/v1/x", "data": {}, **members}).encode()
    return SimpleNamespace(
        topic="headrace.tasks.online", partition=partition, offset=9, timestamp=NOW_S, key=b"k", value=value,
        headers=headers or [],
    )  # fmt: skip


async def enter(made: Door, record: Any, fold: Any = None, *, now_ms: int = 0) -> Submission | Poison | None:
    one = made.read(record)
    assert isinstance(one, Submission), one
    await made.prepare([one])
    return made.admit(one, record, fold or Fold(), now_ms=now_ms)


async def test_a_queue_is_registered_as_its_first_task_over_http_would() -> None:
    queues = Queues()
    found = await enter(door(queues), message())
    assert isinstance(found, Submission)
    assert queues.registered == [("chat", "/v1/x", OWNER)]


async def test_a_queue_that_cannot_be_registered_is_a_reason_and_no_fault() -> None:
    for made, words in (
        (door(Queues(full=True)), "kafka.max_queues"),
        (door(Queues(), ingress={"auto_register": False}), "not registered"),
    ):
        found = await enter(made, message())
        assert isinstance(found, Poison)
        assert found.field == "queue"
        assert words in found.reason


async def test_a_task_of_ours_waits_for_the_record_of_its_queue() -> None:
    queues = Queues()
    made = door(queues, ingress={"auto_register": False})
    one = Submission("TASK", task(), 0, None)
    waiting = asyncio.create_task(made.prepare([one]))
    await asyncio.sleep(0)
    assert not waiting.done()
    queues.known["chat"] = queue("chat")
    await waiting
    assert made.admit(one, message(), Fold(), now_ms=0) is one  # type: ignore[arg-type]  # a double


async def test_an_id_of_another_record_is_refused() -> None:
    found = await enter(door(Queues("chat")), message(), Fold(taken=True))
    assert isinstance(found, Poison)
    assert found.field == "id"


async def test_a_keyed_task_is_written_where_its_twins_live_and_there_only_once() -> None:
    made = door(Queues("chat"))
    home = home_partition("chat", stable_hash(f"{OWNER}\nkey"), width=0, partitions=6)
    away = (home + 1) % 6
    fold = Fold()
    came = message(partition=away, idempotency_key="key", headers=[("x-owner", OWNER.encode())])
    assert await enter(made, came, fold) is None
    [again] = fold.records["headrace.tasks.online", home]
    assert (again.key, again.value, again.timestamp_ms) == (b"k", came.value, int(NOW_S * 1000))
    assert again.headers == [("x-owner", OWNER.encode()), (FORWARDED, b"%d/9" % away)]
    assert fold.notes["forwarded"] == 1
    there = message(partition=away, idempotency_key="key", headers=again.headers)
    assert isinstance(await enter(made, there), Submission)
    assert isinstance(await enter(made, message(partition=home, idempotency_key="key")), Submission)
    large = [("x-much", b"x" * 5_000)]
    assert isinstance(await enter(made, message(partition=away, idempotency_key="key", headers=large)), Submission)


class Cluster:
    """The broker and the producer as replies see them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **topics: int) -> None:
        self.topics, self.asked, self.now = topics, 0, 0.0
        self.written: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.healthy = True
        monkeypatch.setattr(replies, "admin", lambda _: self)
        monkeypatch.setattr(replies, "partition_counts", self._counts)
        monkeypatch.setattr(replies, "Producer", lambda *_, **__: self)

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

    async def ship(self, records: dict[tuple[str, int], list[Record]]) -> None:
        if self.error is not None:
            raise Unavailable from self.error
        self.written += [place for place, several in records.items() for _ in several]

    def replies(self) -> replies.Replies:
        return replies.Replies(Settings(), name="t", clock=lambda: self.now)


def told(count: int) -> list[Record]:
    return [Record(b"TASK-%d" % number, b"r") for number in range(count)]


async def test_a_reply_topic_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    made = door(Queues("chat"), direct={"reply_topics": ["answers"]})
    found = await enter(made, message(reply_topic="answers"))
    assert isinstance(found, Poison)
    assert found.field == "reply_topic"
    cluster.topics["answers"] = 2
    made.replies._seen.clear()
    assert isinstance(await enter(made, message(reply_topic="answers")), Submission)


async def test_replies_are_spread_by_task_and_what_is_not_there_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, answers=2)
    asked = cluster.replies()
    assert await asked.send({"answers": told(20), "gone": told(3)}) == 3
    assert set(cluster.written) == {("answers", 0), ("answers", 1)}
    assert len(cluster.written) == 20
    await asked.look(["answers", "gone"])
    assert cluster.asked == 1
    cluster.now = replies.MISSING_S
    cluster.topics["gone"] = 1
    await asked.look(["answers", "gone"])
    assert (cluster.asked, asked.partitions("gone")) == (2, 1)
    await asked.close()


async def test_what_a_topic_never_takes_is_dropped_and_what_kafka_cannot_now_ends_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(monkeypatch, answers=2)
    asked = cluster.replies()
    cluster.error = MessageSizeTooLargeError()
    assert await asked.send({"answers": told(2)}) == 2
    cluster.error = RequestTimedOutError()
    with pytest.raises(DeliveryFailed):
        await asked.send({"answers": told(2)})
    del cluster.topics["answers"]
    assert await asked.send({"answers": told(2)}) == 2


async def test_only_results_that_are_written_now_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, answers=1)
    made = door(Queues("chat"))
    fold: Any = Fold()
    for name, reply, record in (
        ("a", "answers", Record(b"a", b"r")), ("b", None, Record(b"b", b"r")), ("c", "answers", None),
    ):  # fmt: skip
        fold.results[0, name] = SimpleNamespace(record=record)
        fold.rows[0, name] = {"reply_topic": reply}
    await made.reply(fold)
    assert cluster.written == [("answers", 0)]
    assert fold.notes["reply_dropped"] == 0
