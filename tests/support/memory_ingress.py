"""The ingress without Kafka: the real application over parts that live in memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import httpx
from aiokafka import ConsumerRecord, TopicPartition
from fastapi import FastAPI

from core.errors import Unavailable
from core.kafka.cluster import Cluster
from core.kafka.log_reader import LogRecord
from core.kafka.producer import Record
from core.queues import QueueDirectory
from core.settings.models import Settings
from ingress.app import create_app
from ingress.batches.directory import BatchDirectory
from ingress.connected import Connected, Transport, assemble
from ingress.files.directory import FileDirectory
from ingress.read_model import listing_index
from ingress.read_model.cluster_liveness import ClusterLiveness
from ingress.runtime import Ingress
from schemas import topics
from schemas.codec import BATCH, CHUNK, DELIVERY, EVENT, RESULT, TASK
from schemas.ids import Serials
from schemas.records import TERMINAL, Chunk, Delivery, Event, Result, State, Status, Task
from streams.outputs import status_record
from streams.state_machine.batch_rows import decode_proposal, initial_batch
from tests.support.memory_cluster import MemoryCluster
from tests.support.records import queue
from tests.support.waiting import eventually_async

HEADERS = {"authorization": "Bearer hr-local"}
Answer = Callable[[Task], list[Chunk | Result]]


class Memory:
    """Topics as lists; what a task leads to is decided by `answer`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log: dict[TopicPartition, list[Record]] = defaultdict(list)
        self.rows: dict[bytes, Status] = {}
        self.watchers: list[Callable[..., None]] = []
        self._watching: dict[bytes, Callable[[Status], None]] = {}
        self.answer: Answer = lambda _: []
        self.broken = False
        self.schedules = False
        """Whether batches get their first row, as the scheduler makes it."""
        self.app: FastAPI = create_app(settings)
        self.ingress: Ingress = self.app.state.ingress

    @property
    def connected(self) -> Connected:
        """Return the parts that serve the requests."""
        return self.ingress.connected()

    def replace(self, **parts: object) -> None:
        """Let other parts serve the requests that come from now on; those that were built on the old ones keep them."""
        self.ingress.connection = dataclasses.replace(self.connected, **parts)  # type: ignore[arg-type]  # doubles

    def topic_partition(self, topic: str, partition: int) -> TopicPartition:
        """Name a partition of a declared topic."""
        return TopicPartition(self.settings.topic(topic), partition)

    def connect(self) -> None:
        """Build the connected parts over this memory, in place of Kafka."""
        settings, name, memory = self.settings, self.ingress.name, cast("Any", self)
        self.ingress.cluster = cast("Cluster", MemoryCluster(self))
        transport = Transport(
            producer=memory,
            serials=Serials(7),
            queues=memory,
            log_reader=memory,
            liveness=ClusterLiveness(settings, name=name),
            view=memory,
            deliveries=memory,
            files=FileDirectory(settings, name=name),
            batches=BatchDirectory(settings, name=name),
        )
        for directory in (transport.files, transport.batches):
            directory.tail.positions[TopicPartition("", 0)] = 0
        # A task of any queue is accepted; the routes about queues show none until a test registers some.
        directory_of_queues = QueueDirectory(settings, name=name)
        self.ingress.connection = dataclasses.replace(
            assemble(self.ingress.local, transport), queues=directory_of_queues
        )

    async def send(self, topic: str, partition: int, record: Record) -> int:
        """Append a record, as the producer does."""
        if self.broken:
            raise Unavailable
        tp = TopicPartition(topic, partition)
        self.log[tp].append(record)
        self._fold(tp, record)
        if topic == self.settings.topic(topics.tasks(0)):
            asyncio.get_running_loop().call_soon(self._answer, TASK.decode(record.value or b""))
        offset = len(self.log[tp]) - 1
        if self.schedules and topic == self.settings.topic(topics.events(1)):
            await self._schedule(partition, offset, EVENT.decode(record.value or b""))
        return offset

    async def _schedule(self, partition: int, offset: int, event: Event) -> None:
        if event["kind"] == "batch_created" and event["id"] not in self.connected.batches._rows:
            row = initial_batch(decode_proposal(event, partition=partition), offset=offset, taken=lambda _: False)
            record = Record(row["id"].encode(), BATCH.encode(row))
            await self.send(self.settings.topic(topics.BATCHES), partition, record)

    def _fold(self, tp: TopicPartition, record: Record) -> None:
        """Let the directories of files and batches find a record."""
        parts = {self.settings.topic(topics.FILES): self.connected.files}
        parts[self.settings.topic(topics.BATCHES)] = self.connected.batches
        if (part := parts.get(tp.topic)) is not None:
            offset, key, value = len(self.log[tp]) - 1, record.key, record.value
            part.feed(tp, [ConsumerRecord(tp.topic, tp.partition, offset, 0, 0, key, value, 0, 0, 0, ())])
            part.tail.positions[tp] = offset + 1

    def _answer(self, task: Task) -> None:
        self.tell(self.answer(task))

    def tell(self, records: list[Chunk | Result]) -> None:
        """Let the shared reader find chunks and results."""
        for record in records:
            if "frames" in record:
                self.arrive(topics.CHUNKS, record["id"], CHUNK.encode(record))  # type: ignore[arg-type]
            else:
                self.arrive(topics.results(0), record["id"], RESULT.encode(record))  # type: ignore[arg-type]

    def arrive(self, topic: str, task_id: str, value: bytes) -> int:
        """Let the shared reader find a record at the end of its partition; returns its offset."""
        tp = TopicPartition(self.settings.topic(topic), 0)
        offset = len(self.log[tp])
        self.log[tp].append(Record(task_id.encode(), value))
        self.ingress.waiters.feed(
            tp, [ConsumerRecord(tp.topic, 0, offset, 0, 0, task_id.encode(), value, 0, 0, len(value), ())]
        )
        self.ingress.waiters.tail.positions[tp] = offset + 1
        return offset

    def row(self, row: Status) -> None:
        """Let the read model find a row."""
        key = row["id"].encode()
        self.rows[key] = row
        if (on_row := self._watching.get(key)) is not None:
            on_row(row)

    @contextlib.contextmanager
    def watch(self, key: bytes, on_row: Callable[[Status], None]) -> Iterator[None]:
        """Show the rows of a task."""
        self._watching[key] = on_row
        try:
            yield
        finally:
            del self._watching[key]

    def written(self, topic: str) -> list[Record]:
        """Return what was written to a topic."""
        name = self.settings.topic(topic)
        return [record for tp, records in self.log.items() if tp.topic == name for record in records]

    # What follows stands in for the queue directory, the view and the look-up.

    def get(self, name: str | bytes, *, holding: bytes = b"") -> Any:  # noqa: ARG002 - nothing here is encoded
        """Return a queue by name, or a row by key."""
        if isinstance(name, bytes):
            return self.rows.get(name)
        return queue(name)

    def of(self, task_id: str) -> list[Delivery]:
        """Return the newest row of each delivery of a task."""
        rows = {record.key: DELIVERY.decode(record.value or b"") for record in self.written(topics.DELIVERIES)}
        return [row for row in rows.values() if row["task_id"] == task_id]

    async def wait_for_offset(self, partition: int, offset: int) -> None:
        """Return at once: what is written is there."""

    caught_up = True
    read_at = None
    healthy = True

    async def wait(self, key: bytes, *, seconds: float) -> Status | None:  # noqa: ARG002 - nothing comes later here
        """Return a row."""
        return self.rows.get(key)

    async def wait_until(self, key: bytes, wanted: Callable[[Status], bool], *, seconds: float) -> Status | None:  # noqa: ARG002
        """Return a row as it stands."""
        return self.rows.get(key)

    async def wait_until_ended(self, key: bytes, *, seconds: float) -> bool:
        """Look at a row again and again, which the real one need not do."""

        def ended() -> bool:
            return key in self.rows and self.rows[key]["state"] in TERMINAL

        with contextlib.suppress(AssertionError):
            await eventually_async(ended, within_s=seconds)
        return ended()

    def state(self, key: bytes) -> State | None:
        """Return the state of a row."""
        return self.rows[key]["state"] if key in self.rows else None

    def scan(self, begin: bytes, end: bytes, *, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first of the rows, or of the entries of the order."""
        records = [(key, status_record(row, now_ms=0)) for key, row in self.rows.items()]
        made = [listing_index.entry(key, record.headers) for key, record in records]
        made += [(key, record.value or b"") for key, record in records]
        return sorted(one for one in made if one is not None and begin <= one[0] < end)[:limit]

    async def read(self, tp: TopicPartition, offset: int) -> LogRecord | None:
        """Return a record by its position."""
        records = self.log.get(tp, [])
        if offset >= len(records):
            return None
        return LogRecord(tp.topic, tp.partition, offset, 0, records[offset].key, records[offset].value)

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int | None:  # noqa: ARG002 - all are alike
        """Return where a time begins: every record is of the time 0."""
        return 0 if at_ms <= 0 else None

    async def bounds(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first and the next offset of partitions."""
        return {tp: (0, len(self.log[tp])) for tp in tps}

    async def read_range(self, tp: TopicPartition, offset: int, end: int) -> AsyncIterator[LogRecord]:
        """Yield records."""
        for at, record in enumerate(self.log[tp][offset:end], offset):
            yield LogRecord(tp.topic, tp.partition, at, 0, record.key, record.value)
            await asyncio.sleep(0)

    async def find(self, tp: TopicPartition, key: bytes, *, from_ms: int) -> LogRecord | None:  # noqa: ARG002 - all of it
        """Search for a record by its key."""
        hits = (
            LogRecord(tp.topic, tp.partition, n, 0, record.key, record.value)
            for n, record in enumerate(self.log.get(tp, []))
            if record.key == key
        )
        return next(hits, None)


@contextlib.asynccontextmanager
async def ingress_in_memory(settings: Settings) -> AsyncIterator[tuple[Memory, httpx.AsyncClient]]:
    """Give the memory and a client of the application over it."""
    memory = Memory(settings)
    memory.connect()
    transport = httpx.ASGITransport(memory.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress", headers=HEADERS) as client:
        yield memory, client
