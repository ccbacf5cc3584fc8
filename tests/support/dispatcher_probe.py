"""The surroundings of a dispatcher under test: writes work, cancels and results, sees its events and chunks."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import TopicPartition

from core.kafka.cluster import Cluster
from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.queues import QueueDirectory
from core.settings.models import Settings
from dispatcher.main import serve
from schemas import topics
from schemas.codec import CHUNK, CONTROL, EVENT, RESULT, WORK
from schemas.headers import find
from schemas.ids import TaskId
from schemas.partitioning import stable_hash
from schemas.records import NO_ORIGIN, Chunk, Control, Event, Mode, Outcome, Queue, Result, Work
from tests.support.kafka import declared_topics
from tests.support.waiting import eventually_async

QUEUE = "chat"
WITHIN_S = 60.0
GROUP_POLL_S = 0.1
_serials = itertools.count()


def now_ms() -> int:
    """Read the wall clock."""
    return time.time_ns() // 1_000_000


class DispatcherProbe:
    """Plays the scheduler for dispatchers. Tests share it: whatever one asserts is about its own task ids."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.queue = QUEUE
        """Where `submit` writes unless told otherwise."""
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.heartbeats: dict[str, dict[TopicPartition, list[Event]]] = defaultdict(lambda: defaultdict(list))
        """Heartbeats and goodbyes of each worker, by the partition that they were written to."""
        self.chunks: dict[str, list[Chunk]] = defaultdict(list)
        self.dead_letters: dict[str, list[Any]] = {}
        """By the key of the record."""
        self.traceparents: dict[str, bytes | None] = {}
        """The trace context of the newest event of each task."""
        self.producer = Producer(settings, name="probe")
        self.directory = QueueDirectory(settings, name="probe")
        self._cluster = Cluster(settings, name="probe")
        events = self._names(topics.events(0), topics.events(1))
        self._tails = [
            TopicFollower(settings, name="probe-events", topics=events, handle=self._event),
            TopicFollower(settings, name="probe-chunks", topics=self._names(topics.CHUNKS), handle=self._chunk),
            TopicFollower(
                settings, name="probe-dead", topics=self._names(topics.DEAD_LETTERS), handle=self._dead_letter
            ),
        ]

    async def open(self) -> None:
        """Follow what comes out."""
        await self.producer.start()
        await asyncio.gather(self.directory.open(), *(tail.open() for tail in self._tails))

    async def close(self) -> None:
        """Stop following."""
        await asyncio.gather(self.directory.close(), *(tail.close() for tail in self._tails))
        await self.producer.stop()

    async def use_queue(self, name: str = QUEUE) -> Queue:
        """Register a queue, and write to it from now on."""
        self.queue = name
        return await self.directory.register(self.producer, name)

    async def submit(
        self,
        *,
        level: int = 0,
        queue: str | None = None,
        mode: Mode = "callback",
        attempt: int = 1,
        timeout_s: float = 60,
        task_id: str | None = None,
        sim: dict[str, Any] | None = None,
        traceparent: bytes | None = None,
        **changes: Any,
    ) -> str:
        """Write one work record; `sim` says how the upstream behaves."""
        number, queue = next(_serials), queue or self.queue
        home = number % self.settings.kafka.partitions
        task_id = task_id or str(TaskId(7, level, mode[0].upper(), 1_795_000_000, home, number))
        body = {"model": "m", "messages": [{"role": "user", "content": task_id}], "stream": mode == "streaming"}
        work: Work = {
            "id": task_id,
            "queue": queue,
            "level": level,
            "endpoint": "/v1/chat/completions",
            "mode": mode,
            "attempt": attempt,
            "data": orjson.dumps(body | {"sim": sim or {}}),
            "data_ref": None,
            "model": "m",
            "owner": None,
            "created_ms": now_ms(),
            "deadline_ms": now_ms() + int(timeout_s * 1000),
            "run_timeout_ms": 0,
            "content_type": "application/json",
        }
        work = {**work, **changes}  # type: ignore[typeddict-item]
        headers = [("traceparent", traceparent)] if traceparent else []
        await self.put_work(queue, level, task_id, WORK.encode(work), headers)
        return task_id

    async def put_work(
        self, queue: str, level: int, key: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        """Write any bytes as a work record; returns partition and offset."""
        partition = stable_hash(key) % self.settings.kafka.work_partitions
        topic = self.settings.topic(topics.work(queue, level))
        return partition, await self.producer.send(topic, partition, Record(key.encode(), value, [*headers]))

    async def cancel(self, task_id: str) -> None:
        """Write the control record of a task that was ended."""
        control: Control = {
            "kind": "cancel",
            "at_ms": now_ms(),
            "level": 0,
            "id": task_id,
            "reason": "asked",
            "scheduler": None,
            "partitions": [],
            "workers": [],
        }
        record = Record(task_id.encode(), CONTROL.encode(control))
        await self.producer.send(self.settings.topic(topics.CONTROLS), 0, record)

    async def result(self, url: str | None, *, body: bytes | None = b'{"ok":true}', **changes: Any) -> str:
        """Write the result of a task that has a callback."""
        number = next(_serials)
        home = number % self.settings.kafka.partitions
        task_id = str(TaskId(7, 0, "C", 1_795_000_000, home, number))
        result: Result = {
            "id": task_id,
            "state": "completed",
            "queue": QUEUE,
            "level": 0,
            "endpoint": "/v1/x",
            "mode": "callback",
            "owner": None,
            "model": None,
            "callback_url": url,
            "trace_id": None,
            "attempt": 1,
            "worker": None,
            "upstream": None,
            "status_code": 200,
            "body": body,
            "body_ref": None,
            "content_type": "application/json",
            "error_code": None,
            "error_message": None,
            "usage": None,
            "chunks": 0,
            "created_ms": 1,
            "started_ms": None,
            "finished_ms": 2,
            "callback_events": [],
            **NO_ORIGIN,
            "request_digest": None,
            "lost_workers": 0,
            "first_token_ms": None,
            "cost": None,
            "currency": None,
        }
        result = {**result, **changes}  # type: ignore[typeddict-item]
        record = Record(task_id.encode(), RESULT.encode(result))
        await self.producer.send(self.settings.topic(topics.results(result["level"])), home, record)
        return task_id

    def kinds(self, task_id: str) -> list[str]:
        """Return what happened to a task, in order."""
        return [event["kind"] for event in self.events[task_id]]

    def finished(self, task_id: str) -> Event | None:
        """Return the first finished event of a task."""
        return next((event for event in self.events[task_id] if event["kind"] == "finished"), None)

    async def ended(self, task_id: str) -> Event:
        """Wait for the finished event of a task."""
        await eventually_async(lambda: self.finished(task_id), what=f"the end of {task_id}")
        event = self.finished(task_id)
        assert event is not None
        return event

    async def ended_again(self, task_id: str) -> None:
        """Wait for the second finished event of a task."""
        await eventually_async(lambda: self.kinds(task_id).count("finished") == 2, what=f"a second end of {task_id}")

    async def outcome(self, task_id: str) -> Outcome:
        """Wait for the outcome of a task."""
        outcome = (await self.ended(task_id))["outcome"]
        assert outcome is not None
        return outcome

    async def new_worker(self, known: Collection[str]) -> str:
        """Wait for the first heartbeat of a worker beside the known ones; returns its name."""
        await eventually_async(lambda: {*self.heartbeats} - {*known}, what="a heartbeat")
        [name] = {*self.heartbeats} - {*known}
        return name

    def last_heartbeats(self, worker: str) -> list[Event]:
        """Return the newest heartbeat or goodbye of a worker in each partition."""
        return [events[-1] for events in self.heartbeats[worker].values()]

    async def left(self) -> None:
        """Wait until no dispatcher is a member of the groups of the queue."""
        groups = [self.settings.topic(topics.work(self.queue, level)) for level in range(len(topics.LEVELS))]
        give_up = time.monotonic() + WITHIN_S
        while any((await self._cluster.members(groups)).values()):
            assert time.monotonic() < give_up, "the dispatcher did not leave its groups"
            await asyncio.sleep(GROUP_POLL_S)

    async def uncommitted_work(self) -> int:
        """Count the work of the queue that no dispatcher has committed."""
        work = [topics.work(self.queue, level) for level in range(len(topics.LEVELS))]
        return sum([await self.uncommitted(topic, topic) for topic in work])

    async def work_committed(self, level: int = 0) -> None:
        """Wait until the dispatchers have committed all work of the queue."""
        await self.committed(topics.work(self.queue, level), topics.work(self.queue, level))

    async def committed(self, group: str, *names: str) -> None:
        """Wait until a group has committed everything in these topics."""
        give_up = time.monotonic() + WITHIN_S
        while await self.uncommitted(group, *names):
            assert time.monotonic() < give_up, f"{group} did not commit its offsets"
            await asyncio.sleep(GROUP_POLL_S)

    async def uncommitted(self, group: str, *names: str) -> int:
        """Count the records of these topics that a group has not committed."""
        lags = await self._cluster.lags([(self.settings.topic(group), name) for name in self._names(*names)])
        assert len(lags) == len(names)
        return sum(lag.waiting for lag in lags)

    def _names(self, *names: str) -> list[str]:
        return [self.settings.topic(name) for name in names]

    def _event(self, tp: TopicPartition, records: Records) -> None:
        for record in records:
            event = EVENT.decode(record.value or b"")
            if event["id"]:
                self.events[event["id"]].append(event)
                self.traceparents[event["id"]] = find(record.headers, "traceparent")
            else:
                self.heartbeats[event["worker"] or ""][tp].append(event)

    def _chunk(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            chunk = CHUNK.decode(record.value or b"")
            self.chunks[chunk["id"]].append(chunk)

    def _dead_letter(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            self.dead_letters.setdefault((record.key or b"").decode(), []).append(record)


@asynccontextmanager
async def dispatcher_probe(settings: Settings) -> AsyncIterator[DispatcherProbe]:
    """Create the topics, and open a probe on them; they are deleted at the end."""
    probe = DispatcherProbe(settings)
    async with declared_topics(settings):
        await probe.open()
        try:
            yield probe
        finally:
            await probe.close()


class Dispatcher:
    """A dispatcher that runs inside the test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it."""
        self._stop.clear()
        self._task = asyncio.create_task(serve(self.settings, self._stop))

    async def stop(self) -> None:
        """Stop it the way SIGTERM does."""
        task, self._task = self._task, None
        if task is not None:
            self._stop.set()
            await task


@asynccontextmanager
async def dispatching(settings: Settings) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher for the length of a block."""
    dispatcher = Dispatcher(settings)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        await dispatcher.stop()
