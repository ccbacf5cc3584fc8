"""The directory of queues: a fold of the queues topic, and the way to register one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka import TopicPartition

from core.errors import TooMany, Unavailable
from core.kafka.admin import ensure_topics
from core.kafka.producer import Producer, Record
from core.kafka.tail import Records, Tail
from core.settings import Settings
from schemas import topics
from schemas.codec import QUEUE, SchemaError
from schemas.framing import FramingError
from schemas.headers import headers
from schemas.records import Queue
from schemas.slices import queue_number
from schemas.validation import check_queue

REGISTER_TIMEOUT_S = 10


class QueueDirectory:
    """Know every registered queue; `on_new` is called once per queue, those that were there at the start included."""

    def __init__(self, settings: Settings, *, name: str, on_new: Callable[[Queue], None] | None = None) -> None:
        self._settings = settings
        self._on_new = on_new
        self._queues: dict[str, Queue] = {}
        self._registering: dict[str, asyncio.Task[Queue]] = {}
        self._topic = settings.topic(topics.QUEUES)
        self._tail = Tail(settings, name=f"{name}-queues", topics=[self._topic], handle=self._fold)

    async def open(self) -> None:
        """Read the whole topic, then follow it."""
        await self._tail.open()
        await self._tail.wait_caught_up()

    async def close(self) -> None:
        """Stop following."""
        await self._tail.close()

    def get(self, name: str) -> Queue | None:
        """Return a registered queue."""
        return self._queues.get(name)

    def all(self) -> list[Queue]:
        """Return every queue, by name."""
        return sorted(self._queues.values(), key=lambda queue: queue["name"])

    async def register(
        self, producer: Producer, name: str, *, endpoint: str | None = None, owner: str | None = None
    ) -> Queue:
        """Return the queue, registering it when it is new: its work topics are there when this returns.

        Concurrent calls for one name share one attempt; twins in other processes write the same record again, which is
        harmless, because nothing in it but the time differs.
        """
        if known := self._queues.get(name):
            return known
        task = self._registering.get(name)
        if task is None:
            task = asyncio.create_task(self._register(producer, name, endpoint, owner), name=f"register-{name}")
            self._registering[name] = task
            task.add_done_callback(lambda _: self._registering.pop(name, None))
        return await asyncio.shield(task)

    async def _register(self, producer: Producer, name: str, endpoint: str | None, owner: str | None) -> Queue:
        check_queue(name)
        if len(self._queues) >= self._settings.kafka.max_queues:
            raise TooMany(
                f"{len(self._queues)} queues are registered and kafka.max_queues allows no more", field="queue"
            )
        wide = self._settings.kafka.work_partitions
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                await ensure_topics(
                    self._settings, [topics.work_topic(name, level, partitions=wide) for level in (0, 1)]
                )
                now_ms = time.time_ns() // 1_000_000
                queue: Queue = {
                    "name": name,
                    "number": queue_number(name),
                    "endpoint": endpoint,
                    "owner": owner,
                    "created_ms": now_ms,
                    "width": 0,
                    "work_partitions": wide,
                    "served_by": "dispatcher",
                }
                described = headers(kind="queue", ce_id=f"{name}-{now_ms}", at_ms=now_ms, queue=name, owner=owner)
                record = Record(name.encode(), QUEUE.encode(queue), described, now_ms)
                offset = await producer.send(self._topic, 0, record)
                await self._tail.passed(TopicPartition(self._topic, 0), offset)
        except TimeoutError as error:
            raise Unavailable(f"queue {name} could not be registered in time; nothing was accepted") from error
        return self._queues[name]

    def _fold(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            if record.value is None:
                self._queues.pop(name, None)
                continue
            try:
                queue = QUEUE.decode(record.value)
            except (FramingError, SchemaError):
                continue  # nobody but us writes here; a stray record must not stop every process
            new = queue["name"] not in self._queues
            self._queues[queue["name"]] = queue
            if new and self._on_new is not None:
                self._on_new(queue)
