"""What is noticed of work topics, and what follows: nothing at the first look, and nothing for queues that are well."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from aiokafka import TopicPartition

from core.errors import Unavailable
from core.settings.models import Settings
from schemas.codec import EVENT, STATUS
from schemas.partitioning import queue_number
from streams import work_topics as module
from streams.work_topics import CHECKS_PER_COMPARISON, WorkTopics, WorkTopicState
from tests.support.bella import row_of
from tests.support.records import queue, task

TOPIC = "headrace.work.chat.online"
TASK_ID = f"TASK-{queue_number('chat')}-0-"


class World:
    """A broker, rows and queues; every one of them can be changed."""

    def __init__(self) -> None:
        self.there = {TOPIC: 2, "headrace.work.well.online": 2}
        self.ends_now: dict[TopicPartition, int] = {}
        self.sent: list[Any] = []
        self.rows: dict[bytes, bytes] = {}
        self.state = WorkTopicState()

    async def widths(self, names: Collection[str]) -> dict[str, int]:
        return {name: self.there[name] for name in names if name in self.there}

    async def ends(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.ends_now.get(tp, 0) for tp in tps}

    def all(self) -> list[Any]:
        return [queue(name, work_partitions=2) for name in ("chat", "well")]

    def scan_from(self, _: int, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted(one for one in self.rows.items() if one[0] >= key)

    async def send_all(self, records: list[Any]) -> None:
        self.sent += [EVENT.decode(record.value) for _, _, record in records]

    def waits(self, number: int, **changes: Any) -> str:
        """Add a row that waits for a worker."""
        task_id = f"{TASK_ID}{number}"
        self.rows[task_id.encode()] = STATUS.encode(row_of(task(id=task_id, queue="chat"), number, **changes))
        return task_id


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    async def mend(_: Settings, wanted: dict[str, Any]) -> None:
        made.there |= {name: topic.partitions for name, topic in wanted.items()}

    monkeypatch.setattr(module, "repair_work_topics", mend)
    return made


def watching(world: World, *, partitions: set[int] | None = None) -> WorkTopics:
    doubles: Any = world
    return WorkTopics(
        Settings(),
        0,
        lookup=doubles,
        producer=doubles,
        queues=doubles,
        rows=doubles,
        partitions={0} if partitions is None else partitions,
        state=world.state,
    )


async def test_a_topic_missing_twice_is_created_and_its_tasks_are_requeued(world: World) -> None:
    waits = world.waits(1, attempt=3)
    world.waits(2, not_before_ms=5)
    watch = watching(world)
    del world.there[TOPIC]
    await watch.check()
    assert (watch.unconfirmed, watch.missing, TOPIC in world.there) == (True, [], False)
    await watch.check()
    assert world.there[TOPIC] == 2
    assert [(one["kind"], one["id"], one["attempt"]) for one in world.sent] == [("released", waits, 3)]
    await watch.check()
    assert len(world.sent) == 1


async def test_a_topic_that_cannot_be_created_blocks_only_its_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.waits(1)
    watch = watching(world)
    world.there[TOPIC] = 1

    async def refused(*_: Any) -> None:
        raise Unavailable("not allowed")

    monkeypatch.setattr(module, "repair_work_topics", refused)
    await watch.check()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await watch.check()
        assert (list(world.state.missing), watch.missing) == (["chat"], ["chat"])
    world.there[TOPIC] = 2
    await watch.check()
    assert not watch.missing
    assert len(world.sent) == 1


async def test_a_requeue_waits_for_the_current_batch_and_a_rebalance(world: World) -> None:
    world.waits(1)
    partitions: set[int] = set()
    watch = watching(world, partitions=partitions)
    del world.there[TOPIC]
    world.state.batch = 7
    await watch.check()
    await watch.check()
    partitions.add(0)
    await watch.check()
    assert world.sent == []
    world.state.batch = 8
    partitions.clear()
    await watch.check()
    assert world.sent == []
    partitions.add(0)
    await watch.check()
    assert len(world.sent) == 1


async def test_an_end_below_the_written_offset_means_a_recreated_topic(world: World) -> None:
    world.waits(1)
    world.state.written |= {(TOPIC, 1): 9, ("headrace.work.well.online", 0): 4}
    world.ends_now = {TopicPartition(TOPIC, 1): 9, TopicPartition("headrace.work.well.online", 0): 4}
    watch = watching(world)
    await watch.check()
    assert world.sent == []
    world.ends_now[TopicPartition(TOPIC, 1)] = 2
    for _ in range(CHECKS_PER_COMPARISON + 1):
        await watch.check()
    assert len(world.sent) == 1
    assert world.state.written == {("headrace.work.well.online", 0): 4}
    for _ in range(2 * CHECKS_PER_COMPARISON):
        await watch.check()
    assert len(world.sent) == 1
