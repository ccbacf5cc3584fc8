"""Look up offsets of many partitions with one request per broker, and partition counts of many topics."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    LeaderNotAvailableError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

T = TypeVar("T")

LATEST, EARLIEST = -1, -2
RETRY_S = 0.1
ABSENT = (UnknownTopicOrPartitionError.errno, InvalidTopicError.errno)
"""Error codes for a topic that does not exist or has an invalid name."""


async def retried(client: AIOKafkaClient, ask: Callable[[AIOKafkaClient], Awaitable[T]]) -> T:
    """Repeat a request while it fails with retriable errors, such as a moved leader; the caller sets a time limit."""
    while True:
        try:
            return await ask(client)
        except KafkaError as error:
            if not error.retriable:
                raise
            client.force_metadata_update()
            await asyncio.sleep(RETRY_S)


async def offsets_at(
    client: AIOKafkaClient, tps: Collection[TopicPartition], at_ms: int, *, isolation: int = 1
) -> dict[TopicPartition, int]:
    """Return the first offset at or after a timestamp, or for LATEST or EARLIEST, of each partition.

    LATEST is the last stable offset; with isolation level 0 the high watermark. The client must have metadata of the
    topics (`set_topics`). -1 where all records are older. Raises the error of the first partition that fails;
    retriable ones disappear once the leaders are known and ready.
    """
    led: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for tp in tps:
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader == -1:
            raise LeaderNotAvailableError(str(tp))
        led[leader][tp.topic].append((tp.partition, at_ms))
    responses = await asyncio.gather(
        *(client.send(leader, OffsetRequest(-1, isolation, list(topics.items()))) for leader, topics in led.items())
    )
    found: dict[TopicPartition, int] = {}
    for response in responses:
        for topic, partitions in response.topics:
            for partition, code, _, offset in partitions:
                if code:
                    raise for_code(code)
                found[TopicPartition(topic, partition)] = offset
    return found


def widths_asked(names: list[str] | None) -> Any:
    """Return the metadata request for the given topics, or for all; it never creates a topic."""
    return MetadataRequest(names, allow_auto_topic_creation=False)


def widths_of(response: Any) -> dict[str, int]:
    """Return topic → number of partitions from the response, without missing topics."""
    found: dict[str, int] = {}
    for topic in response.to_object()["topics"]:
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(topic["topic"])
        if topic["error_code"] not in ABSENT:
            found[topic["topic"]] = len(topic["partitions"])
    return found
