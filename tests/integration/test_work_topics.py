"""Topics that are deleted or recreated while a scheduler runs: a missing work topic affects only its queue."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.admin import NewTopic

from core.clock import Deadline
from core.kafka.admin import admin, apply_topics, partition_counts
from core.kafka.cluster import Cluster
from core.kafka.producer import Record
from core.kafka.topic_follower import Records, TopicFollower
from dispatcher.group_consumer import GroupConsumer
from schemas import topics
from schemas.codec import TASK, WORK
from schemas.headers import headers
from tests.support.records import task
from tests.support.scheduler_bench import Bench, scheduler_bench
from tests.support.scheduler_probe import QUEUE
from tests.support.waiting import eventually_async, until

OTHER = "other"


@pytest.fixture(scope="module")
async def bench(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with scheduler_bench(kafka, tmp_path_factory.mktemp("work-topics")) as running:
        await running.probe.queues.register(running.probe.producer, OTHER)
        yield running


def work_topic(bench: Bench) -> str:
    return bench.settings.topic(topics.work(QUEUE, 0))


async def width(bench: Bench) -> int:
    [found] = (await Cluster(bench.settings, name="test").topics([work_topic(bench)])).values() or [0]
    return found


async def works_of_other(bench: Bench, count: int) -> None:
    """Show that another queue's tasks get their work records."""
    made, now_ms = [bench.probe.new_id(number % 2) for number in range(count)], time.time_ns() // 1_000_000
    values = {one: TASK.encode(task(id=one, queue=OTHER, level=0, created_ms=now_ms)) for one in made}
    await bench.probe.producer.send_all(
        [
            (
                bench.settings.topic(topics.tasks(0)),
                int(one.rsplit("-", 2)[1]),
                Record(one.encode(), value, headers(kind="task", ce_id=one, at_ms=now_ms)),
            )
            for one, value in values.items()
        ]
    )
    seen: set[str] = set()

    def note(_: Any, records: Records) -> None:
        seen.update(WORK.decode(record.value)["id"] for record in records if record.value)

    tail = TopicFollower(
        bench.settings, name="other", topics=[bench.settings.topic(topics.work(OTHER, 0))], handle=note
    )
    await tail.open()
    await eventually_async(lambda: set(made) <= seen, what="work of another queue")
    await tail.close()


async def queued(bench: Bench, count: int = 3) -> list[str]:
    """Submit tasks that no worker takes, and wait for their work records."""
    made = await bench.probe.submit(count)
    await eventually_async(lambda: all(bench.probe.work[one] for one in made), what="work records")
    return made


async def test_a_work_topic_that_is_deleted_is_made_again_and_no_other_queue_waits(bench: Bench) -> None:
    before, pid = await queued(bench), bench.role.pid
    async with admin(bench.settings) as client:
        await client.delete_topics([work_topic(bench)])
    meanwhile = await bench.probe.submit(2)
    await works_of_other(bench, 4)
    assert await until(lambda: width(bench), lambda found: found == bench.settings.kafka.work_partitions)
    await eventually_async(lambda: all(bench.probe.work[one] for one in meanwhile), what="work of what came meanwhile")
    await eventually_async(
        lambda: all(bench.probe.work[one][-1]["attempt"] == 2 for one in before), what="new work records"
    )
    await works_of_other(bench, 2)
    assert bench.role.pid == pid, "the scheduler must not restart"
    assert "recreated; " in bench.role.log


async def test_a_recreated_work_topic_gets_its_records_again(bench: Bench) -> None:
    before, pid = await queued(bench), bench.role.pid
    attempts = {one: bench.probe.work[one][-1]["attempt"] for one in before}
    async with admin(bench.settings) as client:
        await client.delete_topics([work_topic(bench)])
        await client.create_topics([NewTopic(work_topic(bench), 2, 1)])
    await eventually_async(
        lambda: all(bench.probe.work[one][-1]["attempt"] > attempts[one] for one in before), what="new work records"
    )
    await works_of_other(bench, 2)
    assert bench.role.pid == pid


async def test_a_member_of_the_group_of_a_work_topic_reads_on(bench: Bench) -> None:
    async def nothing() -> None:
        """Settle nothing."""

    topic, attempts = work_topic(bench), dict[str, int]()
    reader = GroupConsumer(bench.settings, name="test", group=topic, topics=[topic], on_revoke=nothing)

    async def taken(one: str) -> int:
        for found in await reader.poll(100):
            work = WORK.decode(found.record.value)
            attempts[work["id"]] = work["attempt"]
            found.tracker.completed(found.record.offset)
        await reader.commit()
        return attempts.get(one, 0)

    [one, *_] = await queued(bench)
    first = await until(lambda: taken(one))
    async with admin(bench.settings) as client:
        await client.delete_topics([topic])
    assert await until(lambda: taken(one), lambda attempt: attempt > first) > first
    await reader.close(Deadline(10))


async def test_a_recreated_tasks_topic_is_read_from_its_first_record(bench: Bench) -> None:
    await queued(bench, 6)
    topic = bench.settings.topic(topics.tasks(0))
    async with admin(bench.settings) as client:
        await client.delete_topics([topic])
        await until(lambda: partition_counts(client, [topic]), lambda there: topic not in there)
    await apply_topics(bench.settings)
    made = await bench.probe.submit(2)
    await eventually_async(lambda: all(bench.probe.work[one] for one in made), within_s=120, what="work of new tasks")
    # All of it is committed: a restart neither loses nor repeats it.
    cluster, group = Cluster(bench.settings, name="test"), bench.settings.topic("scheduler.online")
    await until(lambda: cluster.lags([(group, topic)]), lambda lags: lags[0].read == 2)
