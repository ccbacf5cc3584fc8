"""Ask for offsets of many partitions with one request to each broker, and for the partitions of many topics."""

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
"""What a broker answers for a topic that does not exist, or that nobody could create."""


async def retried(client: AIOKafkaClient, ask: Callable[[AIOKafkaClient], Awaitable[T]]) -> T:
    """Repeat a question while it fails with what passes by itself, as when a leader moves; the caller bounds it."""
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
    """Return the first offset that is not older than a time, or LATEST or EARLIEST, of each partition.

    LATEST is the end of what is committed, before the first transaction that is open; with the isolation 0 of all.
    The client has to know the topics (`set_topics`). -1 where all records are older. Raises the error of the first
    partition that cannot be answered; what is retriable of them passes once the leaders are known and ready.
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
    """Return the request for the partitions of some topics, without names of all; it never creates one."""
    return MetadataRequest(names, allow_auto_topic_creation=False)


def widths_of(response: Any) -> dict[str, int]:
    """Return the number of partitions of those that exist."""
    found: dict[str, int] = {}
    for topic in response.to_object()["topics"]:
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(topic["topic"])
        if topic["error_code"] not in ABSENT:
            found[topic["topic"]] = len(topic["partitions"])
    return found
