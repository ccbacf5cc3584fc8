"""Check the work topics of registered queues, and repair missing ones or those with too few partitions.

A work topic is created when its queue is registered. If it is deleted or re-created with fewer partitions, its queue
waits until it is repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka import TopicPartition

from core.kafka.admin import Change, add_partitions, admin, ensure_topics, partition_counts
from core.kafka.log_reader import LogReader
from core.queues import merge_registrations
from core.settings.models import Settings
from schemas import topics
from schemas.codec import QUEUE, SchemaError
from schemas.framing import FramingError
from schemas.records import Queue
from schemas.topics import Topic

LEVELS = (0, 1)


async def queues_of(settings: Settings, lookup: LogReader) -> list[Queue]:
    """Build the queue registry from the queues topic."""
    tp = TopicPartition(settings.topic(topics.QUEUES), 0)
    found: dict[str, Queue] = {}
    for begin, end in (await lookup.bounds([tp])).values():
        async for record in lookup.read_range(tp, begin, end):
            with suppress(FramingError, SchemaError):
                queue = QUEUE.decode(record.value or b"")
                found[queue["name"]] = merge_registrations(found.get(queue["name"]), queue)
    return sorted(found.values(), key=lambda queue: queue["name"])


def work_topics(settings: Settings, queues: Iterable[Queue], levels: Sequence[int] = LEVELS) -> dict[str, Topic]:
    """Return the required work topics; queues served by pull workers need none."""
    return {
        settings.topic(topics.work(queue["name"], level)): topics.work_topic(
            queue["name"], level, partitions=queue["work_partitions"]
        )
        for queue in queues
        if queue["served_by"] != "workers"
        for level in levels
    }


def changes_of(wanted: Mapping[str, Topic], there: Mapping[str, int]) -> list[Change]:
    """Return what work topics lack; extra partitions are accepted."""
    return [
        Change(name, "topic", "missing", f"{topic.partitions} partitions")
        if name not in there
        else Change(name, "partitions", str(there[name]), str(topic.partitions))
        for name, topic in wanted.items()
        if there.get(name, 0) < topic.partitions
    ]


async def diff_work_topics(settings: Settings) -> list[Change]:
    """Compare the work topics that registered queues need with what the broker has; raises Unavailable."""
    wanted = await _wanted(settings)
    async with admin(settings) as client:
        return changes_of(wanted, await partition_counts(client, wanted))


async def apply_work_topics(settings: Settings) -> list[Change]:
    """Create missing work topics, and add missing partitions; returns the changes."""
    return await repair_work_topics(settings, await _wanted(settings))


async def repair_work_topics(settings: Settings, wanted: Mapping[str, Topic]) -> list[Change]:
    """Create or extend work topics; raises Unavailable.

    Unlike task topics they may be extended: tasks of a queue may be in any of its partitions.
    """
    async with admin(settings) as client:
        changes = changes_of(wanted, await partition_counts(client, wanted))
        await add_partitions(
            client, {one.topic: wanted[one.topic].partitions for one in changes if one.what == "partitions"}
        )
    await ensure_topics(settings, [wanted[one.topic] for one in changes if one.what == "topic"])
    return changes


async def _wanted(settings: Settings) -> dict[str, Topic]:
    topic = settings.topic(topics.QUEUES)
    async with admin(settings) as client:
        if topic not in await partition_counts(client, [topic]):
            return {}
    lookup = LogReader(settings, name="headrace-topics")
    try:
        await lookup.open_with_retry([topic])
        return work_topics(settings, await queues_of(settings, lookup))
    finally:
        await lookup.close()
