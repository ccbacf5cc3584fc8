"""What stands behind an ingress on a real broker: sees what it writes, writes what a scheduler and a worker would."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import httpx
from aiokafka import TopicPartition

from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from ingress.main import serve
from schemas import ids, topics
from schemas.codec import CHUNK, CONTROL, EVENT, RESULT, STATUS, TASK
from schemas.records import Event, Task
from tests.support.bella import row_of
from tests.support.kafka import declared_topics
from tests.support.memory_ingress import HEADERS
from tests.support.results import result_of
from tests.support.waiting import eventually_async


class IngressBackend:
    """The tasks and events of one ingress, and the records that answer them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.producer = Producer(settings, name="ingress-backend")
        self.tasks: dict[str, Task] = {}
        self.offsets: dict[str, int] = {}
        self.events: dict[str, list[Event]] = defaultdict(list)
        watched = [settings.topic(name) for name in (topics.tasks(0), topics.tasks(1), topics.events(0))]
        self.tail = TopicFollower(settings, name="ingress-backend", topics=watched, handle=self._on)

    def _on(self, tp: TopicPartition, records: Records) -> None:
        for record in records:
            value: Any = record.value
            if value is None:
                continue  # the mark of a new beginning
            if tp.topic == self.settings.topic(topics.events(0)):
                event = EVENT.decode(value)
                self.events[event["id"]].append(event)
                continue
            task = TASK.decode(value)
            assert ids.parse(task["id"] or "").partition == tp.partition
            self.tasks[task["id"] or ""] = task
            self.offsets[task["id"] or ""] = record.offset

    async def begin(self) -> None:
        """Read what earlier tests have left and forget it."""
        await asyncio.gather(*map(self._read_up_to_now, self.tail.positions))
        self.tasks.clear()
        self.offsets.clear()
        self.events.clear()

    async def _read_up_to_now(self, tp: TopicPartition) -> None:
        offset = await self.producer.send(tp.topic, tp.partition, Record(b"mark", None))
        async with asyncio.timeout(60):
            await self.tail.wait_for_offset(tp, offset)

    async def task(self, number: int = 0) -> Task:
        """Return the task that was submitted as the nth."""
        await eventually_async(lambda: len(self.tasks) > number, what=f"task {number}")
        return list(self.tasks.values())[number]

    async def write(self, topic: str, task_id: str, value: bytes | None) -> int:
        """Write a record about a task to its home."""
        partition = ids.parse(task_id).partition
        return await self.producer.send(self.settings.topic(topic), partition, Record(task_id.encode(), value))

    async def chunk(self, task: Task, seq: int, *frames: bytes, attempt: int = 1, worker: str = "w1") -> None:
        """Write a piece of a stream."""
        task_id = task["id"] or ""
        piece = CHUNK.encode(
            {"id": task_id, "attempt": attempt, "worker": worker, "seq": seq, "frames": list(frames), "events": []}
        )
        await self.write(topics.CHUNKS, task_id, piece)

    async def row(self, task: Task, **changes: Any) -> None:
        """Write a row."""
        task_id = task["id"] or ""
        row = row_of(task, self.offsets[task_id], **changes)
        await self.write(topics.status(task["level"]), task_id, STATUS.encode(row))

    async def end(self, task: Task, **changes: Any) -> None:
        """Write an outcome and then its row, as the scheduler does."""
        result = result_of(task["id"] or "", mode=task["mode"], owner=task["owner"], **changes)
        offset = await self.write(topics.results(task["level"]), result["id"], RESULT.encode(result))
        names = ("state", "status_code", "error_code", "error_message", "started_ms", "finished_ms")
        await self.row(task, result_offset=offset, **{name: result[name] for name in names})  # type: ignore[literal-required]

    async def pulse(self, level: int, *, upstreams_up: int = 1) -> None:
        """Speak as a scheduler that owns a lane and hears one worker."""
        now_ms = time.time_ns() // 1_000_000
        control = CONTROL.encode(
            {
                "kind": "pulse",
                "at_ms": now_ms,
                "level": level,
                "id": "",
                "reason": None,
                "scheduler": f"s{level}",
                "partitions": list(range(self.settings.kafka.partitions)),
                "workers": [{"name": "w1", "seen_ms": now_ms, "running": 0, "upstreams_up": upstreams_up}],
            }
        )
        await self.producer.send(self.settings.topic(topics.CONTROLS), 0, Record(b"s", control))

    async def cancelled(self, task: Task) -> Event:
        """Return the cancel that the ingress wrote."""
        await eventually_async(lambda: self.events[task["id"] or ""], what="the cancel")
        return self.events[task["id"] or ""][0]


@contextlib.asynccontextmanager
async def ingress_backend(settings: Settings) -> AsyncIterator[IngressBackend]:
    """Create the topics and open the backend."""
    async with declared_topics(settings):
        backend = IngressBackend(settings)
        await backend.producer.start()
        await backend.tail.open()
        try:
            yield backend
        finally:
            await backend.tail.close()
            await backend.producer.stop()


@contextlib.asynccontextmanager
async def ingress_running(settings: Settings, *, reached: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """Run an ingress in this process and give a client of it; `reached` waits until it has found Kafka."""
    stop = asyncio.Event()
    role = asyncio.create_task(serve(settings, stop), name="ingress-under-test")
    base = f"http://{settings.ingress.host}:{settings.ingress.port}"
    try:
        async with httpx.AsyncClient(base_url=base, headers=HEADERS, timeout=60) as client:
            await listening(client, role, reached=reached)
            yield client
    finally:
        stop.set()
        await role


async def listening(client: httpx.AsyncClient, role: asyncio.Task[None], *, reached: bool) -> None:
    """Return when the process answers, and has found Kafka."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and not role.done():
        with contextlib.suppress(httpx.TransportError):
            missing = (await client.get("/readyz")).json()["missing"]
            if not reached or not any("reached" in sentence for sentence in missing):
                return
        await asyncio.sleep(0.05)
    if role.done():
        role.result()
    raise AssertionError("the ingress did not open in time")
