"""The queue registry: built from the queues topic; registers and configures queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import NotFound, RateLimited, Unavailable
from core.kafka.admin import ensure_topics
from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import QUEUE, SchemaError
from schemas.framing import FramingError
from schemas.headers import headers
from schemas.partitioning import queue_number
from schemas.records import Queue, ServedBy
from schemas.validation import check_queue

REGISTER_TIMEOUT_S = 10
SETTINGS = ("width", "paused", "concurrency", "retention_ms", "max_waiting")


class QueueChanges(NamedTuple):
    """Changes of a queue's settings; None leaves a setting unchanged, 0 removes a limit.

    A `max_waiting` of 0 also overrides the default limit of the settings.
    """

    width: int | None = None
    paused: bool | None = None
    concurrency: int | None = None
    retention_ms: int | None = None
    max_waiting: int | None = None

    def applied(self, queue: Queue) -> Queue:
        """Return the queue with these settings."""
        return {
            **queue,
            "width": queue["width"] if self.width is None else self.width,
            "paused": queue["paused"] if self.paused is None else self.paused,
            "concurrency": queue["concurrency"] if self.concurrency is None else self.concurrency or None,
            "retention_ms": queue["retention_ms"] if self.retention_ms is None else self.retention_ms or None,
            "max_waiting": queue["max_waiting"] if self.max_waiting is None else self.max_waiting,
        }


UNCHANGED = QueueChanges()


class QueueDirectory:
    """Registry of all queues.

    `on_change` is called once per queue, existing ones included, and again whenever its settings or its server change.
    """

    def __init__(self, settings: Settings, *, name: str, on_change: Callable[[Queue], None] | None = None) -> None:
        self._settings = settings
        self._listeners = [] if on_change is None else [on_change]
        self._queues: dict[str, Queue] = {}
        self._registering: dict[str, asyncio.Task[Queue]] = {}
        self._configuring = asyncio.Lock()
        self._topic = settings.topic(topics.QUEUES)
        self._tail = TopicFollower(settings, name=f"{name}-queues", topics=[self._topic], handle=self._fold)

    async def open(self) -> None:
        """Read the whole topic, then follow it."""
        await self._tail.open()
        await self._tail.wait_caught_up()

    def subscribe(self, on_change: Callable[[Queue], None]) -> None:
        """Call `on_change` for every registered queue now, and again after every change."""
        self._listeners.append(on_change)
        for queue in self.all():
            on_change(queue)

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
        self,
        producer: Producer,
        name: str,
        *,
        endpoint: str | None = None,
        owner: str | None = None,
        explicit: bool = False,
        served_by: ServedBy = "dispatcher",
        changes: QueueChanges = UNCHANGED,
    ) -> Queue:
        """Return the queue, and register it if it is new: its work topics exist when this returns.

        Concurrent calls for one name share one attempt. When another process registers the name at the same time,
        `merge_registrations` decides which registration wins: compare the owner of the returned queue with your own.
        """
        if known := self._queues.get(name):
            return known
        task = self._registering.get(name)
        if task is None:
            now_ms = epoch_ms()
            queue: Queue = {
                "name": name,
                "number": queue_number(name),
                "endpoint": endpoint,
                "owner": owner,
                "created_ms": now_ms,
                "width": 0,
                "work_partitions": self._settings.kafka.work_partitions,
                "served_by": served_by,
                "explicit": explicit,
                "paused": False,
                "concurrency": None,
                "retention_ms": None,
                "max_waiting": None,
            }
            queue = changes.applied(queue)
            task = asyncio.create_task(self._register(producer, queue), name=f"register-{name}")
            self._registering[name] = task
            task.add_done_callback(lambda _: self._registering.pop(name, None))
        return await asyncio.shield(task)

    async def convert_to_pull_queue(self, producer: Producer, queue: Queue) -> Queue:
        """Convert a registered queue to pull workers; raises Unavailable."""
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                return await self._write(producer, {**queue, "served_by": "workers"})
        except TimeoutError as error:
            raise Unavailable(f"queue {queue['name']} could not be changed in time") from error

    async def configure(self, producer: Producer, name: str, changes: QueueChanges) -> Queue:
        """Change settings of a registered queue and return the effective ones; raises NotFound and Unavailable.

        The last record of a queue wins as a whole: of two processes that change different settings of one queue at the
        same time, one change may be lost, which the response of that call shows.
        """
        try:
            async with self._configuring, asyncio.timeout(REGISTER_TIMEOUT_S):
                known = self._queues.get(name)
                if known is None:
                    raise NotFound(f"there is no queue {name[:80]}")
                return await self._write(producer, changes.applied(known))
        except TimeoutError as error:
            raise Unavailable(f"queue {name} could not be changed in time") from error

    async def _register(self, producer: Producer, queue: Queue) -> Queue:
        name, wide = queue["name"], queue["work_partitions"]
        check_queue(name)
        if len(self._queues) >= self._settings.kafka.max_queues:
            raise RateLimited(
                f"{len(self._queues)} queues are registered and kafka.max_queues allows no more", field="queue"
            )
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                await ensure_topics(
                    self._settings, [topics.work_topic(name, level, partitions=wide) for level in (0, 1)]
                )
                return await self._write(producer, queue)
        except TimeoutError as error:
            raise Unavailable(f"queue {name} could not be registered in time; nothing was accepted") from error

    async def _write(self, producer: Producer, queue: Queue) -> Queue:
        """Write a queue's record and return the effective one.

        The topic is compacted: the loser of a race writes the winning record again, because only the last record stays.
        """
        while True:
            now_ms, name = epoch_ms(), queue["name"]
            described = headers(kind="queue", ce_id=f"{name}-{now_ms}", at_ms=now_ms, queue=name, owner=queue["owner"])
            record = Record(name.encode(), QUEUE.encode(queue), described, now_ms)
            offset = await producer.send(self._topic, 0, record)
            await self._tail.wait_for_offset(TopicPartition(self._topic, 0), offset)
            counts = self._queues.get(name, queue)
            # Newer settings of the same registration were written after ours, so the last record contains them.
            if _facts(counts) == _facts(queue):
                return counts
            queue = counts

    def _fold(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            if record.value is None:
                self._queues.pop(name, None)
                continue
            try:
                queue = QUEUE.decode(record.value)
            except (FramingError, SchemaError):
                continue  # only Headrace writes here; an invalid record must not stop every process
            known = self._queues.get(queue["name"])
            queue = self._queues[queue["name"]] = merge_registrations(known, queue)
            if known != queue:
                for listener in self._listeners:
                    listener(queue)


def merge_registrations(known: Queue | None, new: Queue) -> Queue:
    """Return the effective queue after one more record.

    The first registration wins, but an explicit one precedes one by a first task, as both may be concurrent. Of one
    registration the last settings win. A pull queue stays one, because the scheduler writes no work records for it.
    """
    if known is None:
        return new
    if all(known[name] == new[name] for name in ("owner", "created_ms", "explicit")):
        queue = new
    elif new["explicit"] and not known["explicit"]:
        queue = _with_settings_of(known, new)
    else:
        queue = known
    return {**queue, "served_by": "workers"} if known["served_by"] == "workers" else queue


def _with_settings_of(known: Queue, new: Queue) -> Queue:
    """Preserve settings, such as a pause, of a registration that another one replaces."""
    return {
        **new,
        "width": known["width"] or new["width"],
        "paused": known["paused"] or new["paused"],
        "concurrency": new["concurrency"] if known["concurrency"] is None else known["concurrency"],
        "retention_ms": new["retention_ms"] if known["retention_ms"] is None else known["retention_ms"],
        "max_waiting": new["max_waiting"] if known["max_waiting"] is None else known["max_waiting"],
    }


def _facts(queue: Queue) -> dict[str, object]:
    """Return the registration of a queue without its settings."""
    return {name: value for name, value in queue.items() if name not in SETTINGS}
