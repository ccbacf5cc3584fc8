"""How long a scheduler and an ingress need to rebuild their local state from Kafka after it was deleted."""

from __future__ import annotations

import time

import aiohttp
from aiokafka import TopicPartition

from bench.cluster import Cluster, cluster, until
from bench.report import Row
from bench.tasks import QUEUE, bench_task, producing
from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import CONTROL
from schemas.ids import TaskId
from schemas.partitioning import queue_number
from schemas.records import Status
from streams import outputs
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules

CHUNK = 20_000
BUDGET_S = 60.0
"""Per million rows: what a process may be away without anybody noticing more than a slow minute."""


def finished_row(task_id: str, offset: int, now_ms: int) -> Status:
    """Make the row of a completed task, as most rows are."""
    task = bench_task(task_id, level=0, now_ms=now_ms)
    row = tasks.submitted(
        None, task, task_id=task_id, offset=offset, created_ms=now_ms, now_ms=now_ms, rules=TaskRules()
    ).row
    assert row is not None  # noqa: S101 - a new task always has one
    return {**row, "state": "completed", "finished_ms": now_ms, "expires_ms": now_ms + 86_400_000, "status_code": 200}


async def write_rows(producer: Producer, settings: Settings, count: int) -> None:
    """Fill the status topic as a scheduler would have."""
    topic, partitions = settings.topic(topics.status(0)), settings.kafka.partitions
    now_ms = time.time_ns() // 1_000_000
    for begin in range(0, count, CHUNK):
        records: dict[tuple[str, int], list[Record]] = {}
        for number in range(begin, min(begin + CHUNK, count)):
            home = number % partitions
            task_id = str(
                TaskId(queue_number(QUEUE), 0, "C", now_ms // 1000 - number // 1_000_000, home, number % 1_000_000)
            )
            row = finished_row(task_id, number, now_ms)
            records.setdefault((topic, home), []).append(outputs.status_record(row, now_ms=now_ms))
        await producer.send_batch(records)


async def rebuild(count: int) -> list[Row]:
    """Start a scheduler and an ingress without local state, with this number of state records in Kafka."""
    async with cluster(streams__store="rocksdb") as running, producing(running.settings) as producer:
        await write_rows(producer, running.settings, count)
        scheduler_s, memory = await _until_heartbeat(running)
        began = time.perf_counter()
        running.start("ingress", "ingress")
        await running.until_answers("/livez")
        await until(lambda: _caught_up(running), what="the read model", within_s=600)
        ingress_s = time.perf_counter() - began
    command = f"python -m bench rebuild --tasks {count}"
    bar = max(BUDGET_S * count / 1e6, 15)
    return [
        Row(f"scheduler's table rebuilt, {count:,} rows", scheduler_s, "s", bar, lower_is_better=True, command=command),
        Row("  its memory after that", memory, "MB", 250, lower_is_better=True, command=command),
        Row(f"ingress' read model rebuilt, {count:,} rows", ingress_s, "s", bar, lower_is_better=True, command=command),
    ]


async def _until_heartbeat(running: Cluster) -> tuple[float, float]:
    """Start the scheduler and wait until it owns every partition; returns seconds and its memory."""
    owned: set[int] = set()

    def take(_: TopicPartition, records: Records) -> None:
        for record in records:
            owned.update(CONTROL.decode(record.value)["partitions"])

    tail = TopicFollower(
        running.settings, name="bench-heartbeats", topics=[running.settings.topic(topics.CONTROLS)], handle=take
    )
    await tail.open()
    try:
        began = time.perf_counter()
        running.start("streams", "streams", "--level", "online")
        await until(lambda: len(owned) == running.settings.kafka.partitions, what="the scheduler", within_s=600)
        return time.perf_counter() - began, running.memory_mb()["streams"]
    finally:
        await tail.close()


async def _caught_up(running: Cluster) -> bool:
    """Ask the ingress what it still waits for."""
    async with aiohttp.ClientSession() as session, session.get(running.url + "/readyz") as answer:
        missing = (await answer.json())["missing"]
    return not any("read model" in sentence or "reached" in sentence for sentence in missing)
