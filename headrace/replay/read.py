"""Find the offsets of a past time range, and read the records in slices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import Unavailable
from core.kafka.log_reader import LogReader, LogRecord
from core.queues import QueueDirectory
from core.settings.models import Settings
from headrace.replay.choice import Choice
from schemas import ids, topics

SLICE = 500
STALL_S = 60
"""Maximum wait for the next slice, seconds; then the run ends and can be resumed."""
TRIES = 5
SLACK_MS = 60_000
"""Tolerance for clock differences of the writers of a partition, ms."""
EARLY_MS = 600_000
"""Tolerance for the time in an id: a writer that is out of serial numbers uses those of the next second."""

T = TypeVar("T")
Home = tuple[int, int]
"""Level and partition."""


class OffsetRange(NamedTuple):
    """A half-open offset range of one partition."""

    level: int
    partition: int
    begin: int
    end: int


class Slice(NamedTuple):
    """Consecutive records of a partition, and the next offset."""

    records: Sequence[LogRecord]
    following: int


async def with_retries(ask: Callable[[], Awaitable[T]]) -> T:
    """Retry while a busy broker does not answer in time; finally raises Unavailable."""
    for _ in range(TRIES - 1):
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(0.5)
    return await ask()


@asynccontextmanager
async def open_queues(settings: Settings) -> AsyncIterator[QueueDirectory]:
    """Open the queue registry; raises Unavailable."""
    queues = QueueDirectory(settings, name="headrace-replay")
    try:
        try:
            await queues.open()
        except KafkaError as error:
            raise Unavailable(f"the queues cannot be read: {error}") from error
        yield queues
    finally:
        await queues.close()


async def task_spans(settings: Settings, lookup: LogReader, choice: Choice) -> list[OffsetRange]:
    """Return the offset ranges of the selected tasks."""
    since = start_offsets(choice, partitions=settings.kafka.partitions)
    found = []
    for (level, partition), from_ms in since.items():
        tp = TopicPartition(settings.topic(topics.tasks(level)), partition)
        span = await offset_range(lookup, tp, from_ms=from_ms, to_ms=choice.to_ms)
        if span is not None:
            found.append(OffsetRange(level, partition, *span))
    return found


async def offset_range(
    lookup: LogReader, tp: TopicPartition, *, from_ms: int | None, to_ms: int | None = None
) -> tuple[int, int] | None:
    """Return the offset range of a time range; None if it is empty."""
    bounds = (await with_retries(lambda: lookup.bounds([tp])))[tp]
    begin, end = bounds
    if from_ms is not None and begin < end:
        at = await with_retries(lambda: lookup.offset_at(tp, from_ms))
        begin = end if at is None else at
    if to_ms is not None and begin < end:
        at = await with_retries(lambda: lookup.offset_at(tp, to_ms + SLACK_MS))
        end = end if at is None else min(at, end)
    return (begin, end) if begin < end else None


async def slices(lookup: LogReader, tp: TopicPartition, begin: int, end: int) -> AsyncIterator[Slice]:
    """Read a half-open offset range; raises Unavailable when the broker does not answer."""
    records = lookup.read_range(tp, begin, end)
    over = False
    while not over:
        held: list[LogRecord] = []
        try:
            async with asyncio.timeout(STALL_S):
                while len(held) < SLICE:
                    held.append(await anext(records))
        except StopAsyncIteration:
            over = True
        except TimeoutError:
            raise Unavailable(f"{tp.topic}/{tp.partition} could not be read for {STALL_S} s") from None
        yield Slice(held, end if over else held[-1].offset + 1)


def start_offsets(choice: Choice, *, partitions: int) -> Mapping[Home, int | None]:
    """Return the partitions to read with their start times: ids contain their partition, so only those are read."""
    if not choice.ids:
        homes = [(level, partition) for level in choice.levels for partition in range(partitions)]
        return dict.fromkeys(homes, choice.from_ms)
    since: dict[Home, int] = {}
    for one in map(ids.parse, choice.ids):
        home, at_ms = (one.level, one.partition), max(0, one.time_s * 1000 - EARLY_MS)
        if one.level in choice.levels and one.partition < partitions:
            since[home] = min(since.get(home, at_ms), at_ms)
    return {home: max(at_ms, choice.from_ms or 0) for home, at_ms in since.items()}
