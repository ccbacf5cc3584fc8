"""The dry run: read as a replay would, count the tasks it would submit, and write nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from aiokafka import TopicPartition

from core.kafka.log_reader import LogReader
from core.settings.models import Settings
from headrace.replay.choice import Choice
from headrace.replay.read import OffsetRange, open_queues, slices, task_spans
from headrace.replay.rejected import refused_of
from headrace.replay.selection import TaskSelector, usage_of, widths_of
from headrace.replay.totals import Tally
from schemas import topics
from schemas.topics import DAY_MS, declared, level_name


class Estimate(NamedTuple):
    """Result of a dry run."""

    tally: Tally
    read: int
    """Number of records read, including results and dead letters."""
    passed_over: Mapping[str, int]
    missing_ids: list[str]
    notes: list[str]


async def estimated(
    settings: Settings, lookup: LogReader, choice: Choice, *, now_ms: int, on_read: Callable[[int, int], None]
) -> Estimate:
    """Count the selected tasks; `on_read` is called with the records read and their total."""
    spans = await task_spans(settings, lookup, choice)
    total = sum(span.end - span.begin for span in spans)
    read = 0

    def more(count: int) -> None:
        nonlocal read
        read += count
        on_read(read, total)

    async with open_queues(settings) as queues:
        widths = widths_of(queues)
    used = await usage_of(settings, lookup, choice, tokens=True, on_read=more)
    refused = await refused_of(settings, lookup, choice, on_read=more)
    total += read
    tally, missing = Tally(), set(choice.ids)

    def picker() -> TaskSelector:
        return TaskSelector(settings, choice, used, widths, refused)

    counted = partial(_count, settings, lookup, tally=tally, missing=missing, on_read=more)
    pickers = await asyncio.gather(*(counted(picker(), span) for span in spans))
    passed_over: dict[str, int] = {}
    for one in pickers:
        for reason, count in one.passed_over.items():
            passed_over[reason] = passed_over.get(reason, 0) + count
    return Estimate(tally, read, passed_over, sorted(missing), expired_parts(choice, now_ms=now_ms))


async def _count(
    settings: Settings,
    lookup: LogReader,
    picker: TaskSelector,
    span: OffsetRange,
    *,
    tally: Tally,
    missing: set[str],
    on_read: Callable[[int], None],
) -> TaskSelector:
    tp = TopicPartition(settings.topic(topics.tasks(span.level)), span.partition)
    async for piece in slices(lookup, tp, span.begin, span.end):
        for pick in picker.select(span.level, piece.records):
            tally.add(pick)
            missing.discard(pick.task_id)
        on_read(len(piece.records))
    return picker


def expired_parts(choice: Choice, *, now_ms: int) -> list[str]:
    """List the parts of the request that are no longer retained."""
    retention = {topic.name: topic.retention_ms or 0 for topic in declared(partitions=1)}
    notes = []
    for level in choice.levels:
        retention_ms = retention[topics.tasks(level)]
        if choice.from_ms is None or choice.from_ms < now_ms - retention_ms:
            notes.append(
                f"{level_name(level)} tasks are retained for {_long(retention_ms)}; older ones cannot be replayed"
            )
    results_ms = retention[topics.results(0)]
    if choice.from_ms is None or choice.from_ms < now_ms - results_ms:
        notes.append(f"results are retained for {_long(results_ms)}; the diff cannot compare with older ones")
    return notes


def _long(ms: int) -> str:
    return f"{ms // DAY_MS} days" if ms > DAY_MS else f"{ms // 3_600_000} h"
