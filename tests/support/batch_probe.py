"""Batches on real roles: create one by its event, see its rows and results, read its files."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import TopicPartition

from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.queues import QueueDirectory
from core.settings.models import Settings
from core.storage.blobs import open_blobs
from schemas import topics
from schemas.batches import BATCH_ENDED, Batch, segments_of
from schemas.codec import BATCH, EVENT
from schemas.events import change, event
from schemas.headers import BATCH_ID, find, headers
from schemas.ids import Serials, parse_batch
from schemas.partitioning import queue_number
from schemas.records import Event
from tests.support.batch_doubles import ENDPOINT, batch_row
from tests.support.kafka import declared_topics
from tests.support.waiting import eventually_async

QUEUE = "batch"


class BatchProbe:
    """What a test sees of batches, and does to them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.blobs = open_blobs(settings)
        self.producer = Producer(settings, name="batch-bench")
        self.rows: dict[str, Batch] = {}
        self.states: dict[str, list[str]] = defaultdict(list)
        self.results: dict[str, list[int]] = defaultdict(list)
        """When each result of a line came, by the line's TASK- id."""
        self._serials = Serials(int(time.time()) % 1000)

    async def create(self, file: bytes, *, window_s: float = 86_400, home: int = 0, **changes: Any) -> str:
        """Store a file and write the event that creates its batch."""
        now_ms = time.time_ns() // 1_000_000
        number = queue_number(QUEUE)
        identity = self._serials.next(queue_number=number, level=1, mode="P", now_s=now_ms // 1000, partition=home)
        name = f"files/file-{identity.packed():x}"
        blob = await self.blobs.put(file, name=name, media_type="application/jsonl")
        times = {"created_ms": now_ms, "expires_ms": now_ms + int(window_s * 1000)}
        row = batch_row(blob, **{"id": identity.batch(), "queue_number": number, **times, **changes})
        await self.tell(event("batch_created", at_ms=now_ms, task_id=row["id"], change=change(batch=BATCH.encode(row))))
        return row["id"]

    async def cancel(self, batch_id: str) -> None:
        """Ask for the cancel of a batch."""
        await self.tell(event("batch_cancel", at_ms=time.time_ns() // 1_000_000, task_id=batch_id, owner="key-1"))

    async def tell(self, happened: Event) -> None:
        """Write an event to its batch's home."""
        described = headers(kind=happened["kind"], ce_id="", at_ms=happened["at_ms"])
        record = Record(happened["id"].encode(), EVENT.encode(happened), described)
        home = parse_batch(happened["id"]).partition
        await self.producer.send(self.settings.topic(topics.events(1)), home, record)

    def ended(self, batch_id: str) -> bool:
        """Tell whether a batch is over."""
        return batch_id in self.rows and self.rows[batch_id]["state"] in BATCH_ENDED

    def count(self, batch_id: str) -> int:
        """Return how many lines have ended well or not."""
        row = self.rows.get(batch_id)
        return row["completed"] + row["failed"] if row is not None else 0

    async def until(self, batch_id: str, state: str, *, within_s: float = 120) -> Batch:
        """Wait for a state that a batch ends in."""
        await eventually_async(lambda: self.ended(batch_id), within_s=within_s, what=f"the end of {batch_id}")
        row = self.rows[batch_id]
        assert row["state"] == state, row
        return row

    async def lines(self, batch_id: str, *, errors: bool) -> list[Any]:
        """Read the output file of a batch, or its error file."""
        text = b""
        for piece in segments_of(self.rows[batch_id], errors=errors):
            data = await self.blobs.read(piece.name)
            assert len(data) == piece.size
            text += data
        return [orjson.loads(line) for line in text.split(b"\n")[:-1]]

    async def names(self, batch_id: str) -> tuple[list[str], list[str]]:
        """Return the custom_ids of both files, sorted."""
        output, errors = [await self.lines(batch_id, errors=kind) for kind in (False, True)]
        return sorted(line["custom_id"] for line in output), sorted(line["custom_id"] for line in errors)

    def fold(self, tp: TopicPartition, records: Records) -> None:
        """Take what is written."""
        for record in records:
            if tp.topic.endswith(topics.BATCHES):
                row = BATCH.decode(record.value or b"")
                self.rows[row["id"]] = row
                states = self.states[row["id"]]
                if states[-1:] != [row["state"]]:
                    states.append(row["state"])
            elif find(record.headers, BATCH_ID) is not None:
                self.results[(record.key or b"").decode()].append(record.timestamp)


def input_of(count: int, *, prefix: str = "c", **sim: Any) -> bytes:
    """Build an input file; `sim` is what the simulator shall do with each line."""
    asked = {"sim": sim} if sim else {}
    lines = []
    for number in range(count):
        body = {"model": "m", "messages": [{"role": "user", "content": str(number)}], **asked}
        lines.append({"custom_id": f"{prefix}-{number}", "method": "POST", "url": ENDPOINT, "body": body})
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


@asynccontextmanager
async def batch_probe(settings: Settings) -> AsyncIterator[BatchProbe]:
    """Make the topics and the queue, and follow the batches; the topics go at the end, when the roles have ended."""
    bench = BatchProbe(settings)
    queues = QueueDirectory(settings, name="batch-bench")
    followed = [settings.topic(topics.BATCHES), settings.topic(topics.results(1))]
    tail = TopicFollower(settings, name="batch-bench", topics=followed, handle=bench.fold)
    async with declared_topics(settings):
        await bench.producer.start()
        try:
            await queues.open()
            await queues.register(bench.producer, QUEUE)
            await queues.close()
            await tail.open()
            yield bench
        finally:
            await tail.close()
            await bench.producer.stop()
