"""Records of tasks.LEVEL that no task came of: the scheduler's dead letters tell where they lie.

Most of them are refused again by the same rules when they are read. But some were refused for what the world was like
then: an id that was taken, a queue or a reply topic that was not there, a time in the future.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiokafka import TopicPartition

from core.kafka.lookup import Found, Lookup
from core.settings import Settings
from headrace.replaying.choice import Choice
from headrace.replaying.reading import SLACK_MS, beginnings, slices, stretch
from schemas import topics
from schemas.headers import find
from schemas.topics import DAY_MS

Place = tuple[int, int, int]
"""Level, partition and offset."""
AHEAD_MS = DAY_MS + SLACK_MS
"""A record may name a time that lies ahead by a day: its letter is older then."""
NEVER_TRIED = b"0"
"""The attempt that letters of refused records name; those of tasks that lost their workers name a later one."""


async def refused_of(
    settings: Settings, lookup: Lookup, choice: Choice, *, on_read: Callable[[int], None]
) -> frozenset[Place]:
    """Return where the refused records of a choice lie. Letters are kept for longer than the tasks."""
    since = [*beginnings(choice, partitions=settings.kafka.partitions).values()]
    if not since:
        return frozenset()
    from_ms = None if None in since else max(0, min(at_ms or 0 for at_ms in since) - AHEAD_MS)
    levels = {settings.topic(topics.tasks(level)).encode(): level for level in choice.levels}
    found: set[Place] = set()
    for partition in range(topics.DEAD_LETTER_PARTITIONS):
        tp = TopicPartition(settings.topic(topics.DEAD_LETTERS), partition)
        if (span := await stretch(lookup, tp, from_ms=from_ms)) is None:
            continue
        async for piece in slices(lookup, tp, *span):
            on_read(len(piece.records))
            found.update(place for record in piece.records if (place := place_of(record, levels)) is not None)
    return frozenset(found)


def place_of(letter: Found, levels: Mapping[bytes, int]) -> Place | None:
    """Return where the record of a letter lies, when it is one that no task came of."""
    level = levels.get(find(letter.headers, "x-topic") or b"")
    if level is None or find(letter.headers, "x-attempt") != NEVER_TRIED:
        return None
    numbers = [find(letter.headers, name) or b"" for name in ("x-partition", "x-offset")]
    if not all(number.isdigit() for number in numbers):
        return None
    partition, offset = map(int, numbers)
    return level, partition, offset
