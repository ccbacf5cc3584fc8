"""What a group member does with records that it received while the group may have removed it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from core.clock import Deadline
from core.settings.models import Settings
from dispatcher import group_consumer as module
from dispatcher.group_consumer import GroupConsumer

PARTITION = TopicPartition("work", 0)


class Coordinator:
    """Confirms every heartbeat."""

    async def _do_heartbeat(self) -> bool:
        return True


class Consumer:
    """A consumer that returns one more record at each poll."""

    def __init__(self, **_: object) -> None:
        self._client = SimpleNamespace(_wait_on_metadata=self._nothing)
        self._coordinator = Coordinator()
        self.polls = 0
        self.polled = asyncio.Event()
        self.stopped = False
        self.listener: Any = None
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=None))

    async def start(self) -> None:
        """Connect."""

    def subscribe(self, topics: Sequence[str], listener: Any) -> None:
        """Join, and get the partition at once."""
        assert topics == ["work"]
        self.listener = listener
        listener.on_partitions_assigned([PARTITION])

    async def getmany(self, **_: object) -> dict[TopicPartition, list[Any]]:
        """Return the next record."""
        self.polls += 1
        self.polled.set()
        return {PARTITION: [SimpleNamespace(topic="work", partition=0, offset=self.polls)]}

    def partitions_for_topic(self, _: str) -> set[int]:
        return {PARTITION.partition}

    async def stop(self) -> None:
        """Leave."""
        self.stopped = True

    async def _nothing(self, *_: object) -> None:
        pass


@pytest.fixture
async def reader(monkeypatch: pytest.MonkeyPatch) -> GroupConsumer:
    monkeypatch.setattr(module, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(module, "SESSION_TIMEOUT_MS", 600_000)

    async def on_revoke() -> None:
        pass

    made = GroupConsumer(Settings(), name="test", group="group", topics=["work"], on_revoke=on_revoke)
    assert await made.open()
    return made


def silence(reader: GroupConsumer) -> None:
    """Pause the process for longer than its session lasts."""
    reader._confirmed_at = -math.inf


async def taking(reader: GroupConsumer) -> asyncio.Task[list[Any]]:
    """Start a poll, and wait until the record is there."""
    task = asyncio.create_task(reader.poll(1))
    await reader._consumer.polled.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    return task


async def test_a_member_that_is_confirmed_takes_at_once(reader: GroupConsumer) -> None:
    [received] = await reader.poll(1)
    assert (received.record.offset, reader.owns(received)) == (1, True)


async def test_after_a_sleep_nothing_is_taken_before_the_group_has_confirmed_the_member(reader: GroupConsumer) -> None:
    silence(reader)
    task = await taking(reader)
    assert not task.done()
    assert await reader._consumer._coordinator._do_heartbeat()
    [received] = await task
    assert received.record.offset == 1


async def test_what_others_were_given_during_a_sleep_is_left_out(reader: GroupConsumer) -> None:
    silence(reader)
    task = await taking(reader)
    await reader._consumer.listener.on_partitions_revoked([PARTITION])
    reader._consumer.listener.on_partitions_assigned([])
    assert await task == []


async def test_a_member_that_its_group_never_confirms_joins_again(
    reader: GroupConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SESSION_TIMEOUT_MS", 0)
    silence(reader)
    before = reader._consumer
    assert await reader.poll(1) == []
    assert before.stopped
    assert not reader.assigned
    [received] = await reader.poll(1)
    assert reader.owns(received)
    assert reader._consumer is not before


async def test_a_stop_ends_the_wait(reader: GroupConsumer) -> None:
    silence(reader)
    task = await taking(reader)
    await reader.close(Deadline(5))
    await task
