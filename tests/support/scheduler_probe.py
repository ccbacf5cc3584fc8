"""The surroundings of a scheduler under test: writes tasks and events, sees everything that comes out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.queues import QueueDirectory
from core.settings.models import Settings
from schemas import ids, topics
from schemas.codec import CONTROL, EVENT, RESULT, STATUS, TASK, USAGE, WORK
from schemas.events import event
from schemas.headers import headers
from schemas.partitioning import queue_number
from schemas.records import Control, Event, Result, Status, Work
from schemas.usage import UsageRecord
from tests.support.kafka import declared_topics
from tests.support.records import finished, task

QUEUE = "chat"


class SchedulerProbe:
    """All topics of one level, as the tests see them."""

    def __init__(self, settings: Settings, level: int = 0) -> None:
        self.settings = settings
        self.level = level
        self.producer = Producer(settings, name="probe")
        self.queues = QueueDirectory(settings, name="probe")
        self.work: dict[str, list[Work]] = defaultdict(list)
        self.results: dict[str, list[Result]] = defaultdict(list)
        self.usage: dict[str, list[UsageRecord]] = defaultdict(list)
        self.result_offsets: dict[str, int] = {}
        self.rows: dict[str, Status | None] = {}
        self.row_states: dict[str, list[str]] = defaultdict(list)
        self.cancels: list[str] = []
        self.heartbeats: list[Control] = []
        self.dead_letters: list[Any] = []
        self.worker = "probe-worker"
        self._serials = ids.Serials(int(time.time()) % 1000)
        self._todo: list[Work] = []

    def new_id(self, partition: int = 0) -> str:
        """Return a fresh id."""
        return str(
            self._serials.next(
                queue_number=queue_number(QUEUE),
                level=self.level,
                mode="C",
                now_s=int(time.time()),
                partition=partition,
            )
        )

    async def submit(self, count: int = 1, **changes: Any) -> list[str]:
        """Write tasks over all partitions; returns their ids once they are durable."""
        made = [self.new_id(number % self.settings.kafka.partitions) for number in range(count)]
        now_ms = time.time_ns() // 1_000_000
        records = []
        for one in made:
            value = TASK.encode(task(id=one, queue=QUEUE, level=self.level, created_ms=now_ms, **changes))
            records.append(
                (
                    self.settings.topic(topics.tasks(self.level)),
                    ids.parse(one).partition,
                    Record(one.encode(), value, headers(kind="task", ce_id=one, at_ms=now_ms)),
                )
            )
        await self.producer.send_all(records)
        return made

    async def send_events(self, *events: Event) -> None:
        """Write events to the homes of their tasks."""
        await self.producer.send_all(
            [
                (
                    self.settings.topic(topics.events(self.level)),
                    ids.parse(one["id"]).partition,
                    Record(
                        one["id"].encode(),
                        EVENT.encode(one),
                        headers(kind=one["kind"], ce_id="", at_ms=one["at_ms"], attempt=one["attempt"] or None),
                    ),
                )
                for one in events
            ]
        )

    async def send_worker_event(self, kind: str, worker: str, **changes: Any) -> None:
        """Write a heartbeat or goodbye to every partition."""
        what = event(kind, at_ms=time.time_ns() // 1_000_000, worker=worker, **changes)  # type: ignore[arg-type]
        topic = self.settings.topic(topics.events(self.level))
        await self.producer.send_all(
            [(topic, p, Record(worker.encode(), EVENT.encode(what))) for p in range(self.settings.kafka.partitions)]
        )

    async def finish_pending(self) -> int:
        """Answer every work record seen so far, as a dispatcher would."""
        todo, self._todo = self._todo, []
        await self.send_events(*(finished(work["id"], attempt=work["attempt"], worker=self.worker) for work in todo))
        return len(todo)

    def _on(self, tp: TopicPartition, records: Records) -> None:
        name = tp.topic.removeprefix(self.settings.kafka.topic_prefix)
        for record in records:
            value: Any = record.value
            if name == topics.DEAD_LETTERS:
                self.dead_letters.append(record)
            elif name == topics.CONTROLS:
                control = CONTROL.decode(value)
                (self.cancels.append(control["id"]) if control["kind"] == "cancel" else self.heartbeats.append(control))
            elif name == topics.results(self.level):
                result = RESULT.decode(value)
                self.results[result["id"]].append(result)
                self.result_offsets[result["id"]] = record.offset
            elif name == topics.USAGE:
                self.usage[(record.key or b"").decode()].append(USAGE.decode(value))
            elif name == topics.status(self.level):
                key = (record.key or b"").decode()
                self.rows[key] = STATUS.decode(value) if value else None
                self.row_states[key].append(self.rows[key]["state"] if value else "removed")  # type: ignore[index]
            elif name.startswith(topics.WORK):
                work = WORK.decode(value)
                self.work[work["id"]].append(work)
                self._todo.append(work)


@asynccontextmanager
async def scheduler_probe(settings: Settings, level: int = 0) -> AsyncIterator[SchedulerProbe]:
    """Create the topics and open a probe on them; at the end, when the roles have ended, the topics are deleted."""
    async with declared_topics(settings):
        probe = SchedulerProbe(settings, level)
        await probe.producer.start()
        await probe.queues.open()
        await probe.queues.register(probe.producer, QUEUE)
        names = [
            topics.work(QUEUE, level),
            topics.results(level),
            topics.status(level),
            topics.CONTROLS,
            topics.USAGE,
            topics.DEAD_LETTERS,
        ]
        tail = TopicFollower(settings, name="probe", topics=[settings.topic(name) for name in names], handle=probe._on)
        await tail.open()
        try:
            yield probe
        finally:
            await tail.close()
            await probe.queues.close()
            await probe.producer.stop()
