"""Work that was done and never committed: a kill -9 and a second dispatcher, which runs none of it again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError

from core.settings.models import Settings
from schemas import topics
from tests.support.dispatcher_probe import QUEUE, WITHIN_S, DispatcherProbe, dispatching
from tests.support.held_upstream import HeldUpstream
from tests.support.roles import running
from tests.support.waiting import eventually_async

DONE = 200
ONLINE = topics.work(QUEUE, 0)


async def uncommit(settings: Settings) -> None:
    """Take a group's commits back, as if they had hung, once Kafka has noticed that its last member is dead."""
    name = settings.topic(ONLINE)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap, group_id=name, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, partition) for partition in range(settings.kafka.work_partitions)])
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    await consumer.commit(dict.fromkeys(consumer.assignment(), 0))
                except CommitFailedError:  # the group has a member still
                    await asyncio.sleep(0.2)
                else:
                    return
    finally:
        await consumer.stop()


@pytest.fixture
async def killed(probe: DispatcherProbe, settings: Settings, env: dict[str, str], folder: Path) -> list[str]:
    """Have a dispatcher do work, kill it, and forget that it has committed any of it; the ids of what it did."""
    await probe.use_queue(QUEUE)
    with running("dispatcher", env=env, log=folder / "killed.log") as role:
        ids = [await probe.submit() for _ in range(DONE)]
        await eventually_async(lambda: all(probe.finished(one) for one in ids), what="all outcomes")
        role.kept = False
        role.kill()
    await uncommit(settings)
    assert await probe.uncommitted(ONLINE, ONLINE) == DONE
    return ids


async def test_what_was_done_is_not_done_again(
    probe: DispatcherProbe, settings: Settings, sim: HeldUpstream, killed: list[str]
) -> None:
    again = [await probe.submit(task_id=one) for one in killed[:10]]
    after = [await probe.submit() for _ in range(10)]
    attempts = [await probe.submit(task_id=one, attempt=2) for one in killed[-10:]]
    async with dispatching(settings):
        for one in after:
            await probe.ended(one)
        await eventually_async(
            lambda: all(any(event["attempt"] == 2 for event in probe.events[one]) for one in attempts),
            what="the second attempts",
        )
        await probe.work_committed()
    assert sim.stats.arrivals == DONE + len(after) + len(attempts)
    assert {one: sim.stats.keys[one].arrivals for one in again} == dict.fromkeys(again, 1)
