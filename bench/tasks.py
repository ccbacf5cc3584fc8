"""Tasks written straight to Kafka, and the results counted there: the load of the measurements without HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiokafka import TopicPartition

from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.queues import QueueDirectory
from core.settings.models import Settings
from schemas import topics
from schemas.codec import TASK
from schemas.headers import headers
from schemas.ids import Serials
from schemas.partitioning import queue_number
from schemas.records import NO_ORIGIN, Task

QUEUE = "bench"
DATA = orjson.dumps({"model": "sim-instant", "messages": [{"role": "user", "content": "ping " * 60}]})
"""About 350 bytes: a short prompt."""


def bench_task(task_id: str, *, level: int, now_ms: int) -> Task:
    """Make one callback task."""
    return {
        "queue": QUEUE,
        "level": level,
        "endpoint": "/v1/chat/completions",
        "data": DATA,
        "id": task_id,
        "mode": "callback",
        "data_ref": None,
        "model": "sim-instant",
        "owner": "bench",
        "callback_url": None,
        "trace_id": None,
        "idempotency_key": None,
        "created_ms": now_ms,
        "timeout_ms": 0,
        "start_timeout_ms": 0,
        "run_timeout_ms": 0,
        "retention_ms": 0,
        "content_type": "application/json",
        "user": None,
        "callback_events": [],
        **NO_ORIGIN,
    }


def task_records(settings: Settings, level: int, count: int) -> dict[tuple[str, int], list[Record]]:
    """Make tasks over all partitions, packed for `Producer.send_batch`."""
    serials, now_ms = Serials(999), time.time_ns() // 1_000_000
    topic = settings.topic(topics.tasks(level))
    records: dict[tuple[str, int], list[Record]] = {}
    for number in range(count):
        home = number % settings.kafka.partitions
        task_id = str(
            serials.next(queue_number=queue_number(QUEUE), level=level, mode="C", now_s=now_ms // 1000, partition=home)
        )
        task = bench_task(task_id, level=level, now_ms=now_ms)
        described = headers(kind="task", ce_id=task_id, at_ms=now_ms, queue=QUEUE, level=level, owner="bench")
        records.setdefault((topic, home), []).append(Record(task_id.encode(), TASK.encode(task), described, now_ms))
    return records


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[Producer]:
    """Open a producer, with the queue registered."""
    producer = Producer(settings, name="bench")
    await producer.start()
    directory = QueueDirectory(settings, name="bench")
    await directory.open()
    try:
        await directory.register(producer, QUEUE)
        yield producer
    finally:
        await directory.close()
        await producer.stop()


class Counted:
    """Counts distinct keys of a topic and notes when each new one came."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.first_at = 0.0
        self.last_at = 0.0
        self._moved = asyncio.Event()

    def take(self, _: TopicPartition, records: Records) -> None:
        """Count a batch."""
        before = len(self.keys)
        self.keys.update(record.key or b"" for record in records)
        if len(self.keys) > before:
            self.last_at = time.perf_counter()
            self.first_at = self.first_at or self.last_at
            self._moved.set()

    async def reaches(self, count: int, *, within_s: float = 180) -> None:
        """Wait for so many keys."""
        async with asyncio.timeout(within_s):
            while len(self.keys) < count:
                self._moved.clear()
                await self._moved.wait()


@asynccontextmanager
async def counting(settings: Settings, topic: str) -> AsyncIterator[Counted]:
    """Count the keys of a topic from its first record on."""
    counted = Counted()
    tail = TopicFollower(settings, name="bench-count", topics=[settings.topic(topic)], handle=counted.take)
    await tail.open()
    try:
        yield counted
    finally:
        await tail.close()
