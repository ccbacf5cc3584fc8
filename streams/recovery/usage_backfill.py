"""The usage topic: one small record per task that has a result, for whoever adds up tokens and money.

A result is durable before its usage record is written, and that before the input's offset is committed. So nothing is
accounted for that has no result; and a result that a crash has left without its record lies among those that are found
after an assignment, where `missing` makes up for it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping

from aiokafka import TopicPartition

from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas import topics
from schemas.codec import USAGE
from schemas.common import Usage
from schemas.headers import headers
from schemas.records import Result
from schemas.usage import UsageRecord

log = logging.getLogger(__name__)

StateKey = tuple[int, str]
ZERO_USAGE: Usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def usage_of(result: Result) -> UsageRecord:
    """Take what is to be added up out of a result; a task whose tokens nobody counted has none."""
    counted = result["usage"] or ZERO_USAGE
    return {
        "id": result["id"],
        "owner": result["owner"],
        "queue": result["queue"],
        "level": result["level"],
        "model": result["model"],
        "endpoint": result["endpoint"],
        "upstream": result["upstream"],
        "state": result["state"],
        "status_code": result["status_code"],
        "attempt": result["attempt"],
        **counted,
        "cost": result["cost"],
        "currency": result["currency"],
        "created_ms": result["created_ms"],
        "started_ms": result["started_ms"],
        "finished_ms": result["finished_ms"],
        "batch_id": result["batch_id"],
        "replay_of": result["replay_of"],
    }


def usage_record(result: Result) -> Record:
    """Render the usage of a task; its time is that of the result, also when it is written later."""
    at_ms = result["finished_ms"]
    described = headers(
        kind=f"usage.{result['state']}",
        ce_id=result["id"],
        at_ms=at_ms,
        queue=result["queue"],
        level=result["level"],
        owner=result["owner"],
        model=result["model"],
    )
    return Record(result["id"].encode(), USAGE.encode(usage_of(result)), described, at_ms)


async def find_missing_usage(
    settings: Settings, results: Mapping[StateKey, tuple[int, Result]], *, lookup: LogReader
) -> dict[tuple[str, int], list[Record]]:
    """Return the usage records that lack among results; raises Unavailable.

    A record has the time of its result, so the topic is searched from the oldest of them on, whatever the clocks say.
    """
    topic = settings.topic(topics.USAGE)
    since: dict[int, int] = {}
    for (partition, _), (_, result) in results.items():
        since[partition] = min(since.get(partition, result["finished_ms"]), result["finished_ms"])
    there: set[tuple[int, bytes | None]] = set()
    for partition, from_ms in since.items():
        async for record in lookup.scan(TopicPartition(topic, partition), from_ms=from_ms):
            there.add((partition, record.key))
    missing: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for (partition, task_id), (_, result) in results.items():
        if (partition, task_id.encode()) not in there:
            missing[topic, partition].append(usage_record(result))
    return missing


async def backfill_usage(
    settings: Settings, results: Mapping[StateKey, tuple[int, Result]], *, lookup: LogReader, producer: Producer
) -> int:
    """Write the usage records that lack among results; returns how many. Raises Unavailable."""
    missing = await find_missing_usage(settings, results, lookup=lookup)
    if missing:
        await producer.send_batch(missing)
    count = sum(map(len, missing.values()))
    if count:
        log.info("wrote %d usage records that a crash had cut off", count, extra={"event": "usage_completed"})
    return count
