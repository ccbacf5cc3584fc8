"""Passes over the past: as few as possible, in order, and none gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from core.kafka.log_reader import LogRecord
from ingress.task_events import log_reader
from ingress.task_events.log_reader import ChunkReplayer, ReplayRequest
from schemas.codec import CHUNK
from schemas.records import Chunk

TP = TopicPartition("chunks", 0)
TASKS = 10


class Log:
    """A partition with the chunks of some tasks in turns; stands in for the look-up."""

    def __init__(self, length: int = 200) -> None:
        self.passes: list[tuple[int, int]] = []
        self.fails_at: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.records = [self._record(offset) for offset in range(length)]

    def _record(self, offset: int) -> LogRecord:
        task = f"T{offset % TASKS}"
        chunk: Chunk = {"id": task, "attempt": 1, "worker": "w", "seq": offset // TASKS, "frames": [b"x"], "events": []}
        return LogRecord(TP.topic, TP.partition, offset, 0, task.encode(), CHUNK.encode(chunk))

    async def read_range(self, _: TopicPartition, begin: int, end: int) -> AsyncIterator[LogRecord]:
        """Yield records, and fail where that is wanted."""
        self.passes.append((begin, end))
        await asyncio.sleep(0)  # as a network would
        for record in self.records[begin:end]:
            if record.offset in self.fails_at:
                self.fails_at.remove(record.offset)
                raise KafkaConnectionError
            await self.gate.wait()
            yield record


class Reader:
    """One who asks for the chunks of a task."""

    def __init__(self, task: int, begin: int = 0, end: int = 200) -> None:
        self.got: list[int] = []
        self.task, self.begin, self.end = task, begin, end
        self.request = ReplayRequest(b"T%d" % task, begin, end, self.take)

    def take(self, chunk: Chunk, offset: int) -> None:
        """Take a record."""
        assert chunk["id"] == f"T{self.task}"
        self.got.append(offset)

    @property
    def wanted(self) -> list[int]:
        """Return the offsets that belong to it."""
        return [offset for offset in range(self.begin, self.end) if offset % TASKS == self.task]


@pytest.fixture
def log() -> Log:
    return Log()


def replays_of(log: Log) -> ChunkReplayer:
    lookup: Any = log
    return ChunkReplayer(lookup)


async def test_many_share_few_passes(log: Log) -> None:
    replays = replays_of(log)
    readers = [Reader(number % TASKS, begin=number % 7) for number in range(500)]
    await asyncio.gather(*(replays.read(TP, reader.request) for reader in readers))
    assert all(reader.got == reader.wanted for reader in readers)
    assert len(log.passes) == 2


async def test_when_the_one_who_reads_leaves_another_goes_on(log: Log) -> None:
    replays = replays_of(log)
    log.gate.clear()
    first, second = Reader(1), Reader(2)
    leaving = asyncio.create_task(replays.read(TP, first.request))
    staying = asyncio.create_task(replays.read(TP, second.request))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    log.gate.set()
    await staying
    assert second.got == second.wanted
    assert replays._asked[TP] == []


async def test_a_broken_pass_goes_on_where_it_was(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "RETRY_S", 0)
    log.fails_at = [0, 50, 51, 120]
    reader = Reader(1)
    await replays_of(log).read(TP, reader.request)
    assert reader.got == reader.wanted
    assert [begin for begin, _ in log.passes] == [0, 0, 49, 50, 119]


async def test_what_lies_far_apart_is_not_read_in_one_pass(log: Log) -> None:
    replays = replays_of(log)
    early, late = Reader(1, 0, 20), Reader(1, 180, 200)
    await asyncio.gather(replays.read(TP, early.request), replays.read(TP, late.request))
    assert (early.got, late.got) == (early.wanted, late.wanted)
    assert log.passes == [(0, 20), (180, 200)]


async def test_a_record_that_cannot_be_read_is_passed_over(log: Log) -> None:
    log.records[11] = log.records[11]._replace(value=b"\x00broken")
    log.records[21] = log.records[21]._replace(value=None)
    reader = Reader(1)
    await replays_of(log).read(TP, reader.request)
    assert reader.got == [offset for offset in reader.wanted if offset not in (11, 21)]
