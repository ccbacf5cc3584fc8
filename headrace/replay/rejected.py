"""Records of tasks.LEVEL that never became tasks, from the scheduler's dead letters and the batch states.

Most rejected records are rejected again by the same rules. Others depended on the state at that time: an id in use, a
missing queue or reply topic, a timestamp in the future. Batch lines that were submitted twice or after the end of the
batch are dropped by the scheduler without a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from aiokafka import TopicPartition

from core.kafka.log_reader import LogReader, LogRecord
from core.settings.models import Settings
from headrace.replay.choice import Choice
from headrace.replay.read import SLACK_MS, offset_range, slices, start_offsets
from schemas import topics
from schemas.codec import BATCH, SchemaError
from schemas.framing import FramingError
from schemas.headers import find
from schemas.topics import DAY_MS

Place = tuple[int, int, int]
"""Level, partition and offset."""
AHEAD_MS = DAY_MS + SLACK_MS
"""A record may have a timestamp up to a day ahead of its dead letter, ms."""
OFFLINE = 1
NEVER_TRIED = b"0"
"""Attempt number in dead letters of rejected records; dead letters of tasks with lost workers have a higher one."""


class RejectedRecords(NamedTuple):
    """Records that the scheduler did not accept as tasks."""

    places: Collection[Place] = ()
    submitted_lines: Mapping[str, int] = MappingProxyType({})
    """Batch → number of lines that became tasks; without batches that are no longer retained."""


async def refused_of(
    settings: Settings, lookup: LogReader, choice: Choice, *, on_read: Callable[[int], None]
) -> RejectedRecords:
    """Return the rejected records of a selection. Dead letters are retained longer than tasks."""
    places = await _places(settings, lookup, choice, on_read)
    return RejectedRecords(
        places, await _submitted_lines(settings, lookup, on_read) if OFFLINE in choice.levels else {}
    )


async def _submitted_lines(settings: Settings, lookup: LogReader, on_read: Callable[[int], None]) -> dict[str, int]:
    newest: dict[bytes | None, bytes | None] = {}
    for partition in range(settings.kafka.partitions):
        tp = TopicPartition(settings.topic(topics.BATCHES), partition)
        if (span := await offset_range(lookup, tp, from_ms=None)) is None:
            continue
        async for piece in slices(lookup, tp, *span):
            on_read(len(piece.records))
            newest.update((record.key, record.value) for record in piece.records)
    fed: dict[str, int] = {}
    for value in newest.values():
        with suppress(FramingError, SchemaError):  # of another program
            if value is not None:
                row = BATCH.decode(value)
                fed[row["id"]] = row["fed"]
    return fed


async def _places(
    settings: Settings, lookup: LogReader, choice: Choice, on_read: Callable[[int], None]
) -> frozenset[Place]:
    since = [*start_offsets(choice, partitions=settings.kafka.partitions).values()]
    if not since:
        return frozenset()
    from_ms = None if None in since else max(0, min(at_ms or 0 for at_ms in since) - AHEAD_MS)
    levels = {settings.topic(topics.tasks(level)).encode(): level for level in choice.levels}
    found: set[Place] = set()
    for partition in range(topics.DEAD_LETTER_PARTITIONS):
        tp = TopicPartition(settings.topic(topics.DEAD_LETTERS), partition)
        if (span := await offset_range(lookup, tp, from_ms=from_ms)) is None:
            continue
        async for piece in slices(lookup, tp, *span):
            on_read(len(piece.records))
            found.update(place for record in piece.records if (place := place_of(record, levels)) is not None)
    return frozenset(found)


def place_of(dead: LogRecord, levels: Mapping[bytes, int]) -> Place | None:
    """Return the position of a dead letter's original record, if it never became a task."""
    level = levels.get(find(dead.headers, "x-topic") or b"")
    if level is None or find(dead.headers, "x-attempt") != NEVER_TRIED:
        return None
    numbers = [find(dead.headers, name) or b"" for name in ("x-partition", "x-offset")]
    if not all(number.isdigit() for number in numbers):
        return None
    partition, offset = map(int, numbers)
    return level, partition, offset
