"""Query topics and consumer groups: lag, members, compression, open transactions.

For operators and for `doctor`, not for the hot path: every call opens its own connections, so it neither delays other
requests nor needs a connection to be kept open between calls.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.admin import DescribeGroupsRequest, DescribeGroupsRequest_v2

from core.kafka import codecs
from core.kafka.admin import (
    COMPRESSION,
    READABLE_DEFAULT,
    admin,
    current_configs,
    declared_topics,
    partition_counts,
)
from core.kafka.aiokafka_patches import client_of
from core.kafka.log_reader import TIMEOUT_S, LogReader
from core.kafka.offsets import EARLIEST, LATEST, offsets_at, retried
from core.settings.models import Settings

T = TypeVar("T")

AT_ONCE = 16
"""Concurrent requests: hundreds of queues must not overload a broker."""


class Lag(NamedTuple):
    """Position of a consumer group in one topic."""

    group: str
    topic: str
    positions: Mapping[int, int]
    """Next offset per partition; the first available one if the group has committed nothing."""
    ends: Mapping[int, int]

    @property
    def waiting(self) -> int:
        """Return the number of records that the group has not read."""
        return sum(max(0, end - self.positions[partition]) for partition, end in self.ends.items())

    @property
    def read(self) -> int:
        """Return the sum of positions; its growth between two calls is the number of records read."""
        return sum(self.positions.values())


class Member(NamedTuple):
    """A consumer in a group."""

    client: str
    host: str
    partitions: tuple[TopicPartition, ...]


class Cluster:
    """Queries of one cluster; each raises Unavailable when no broker answers."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name

    async def topics(self, names: Iterable[str]) -> dict[str, int]:
        """Return topic → number of partitions for the given topics that exist."""
        async with admin(self._settings) as client:
            return await partition_counts(client, names)

    async def unreadable(self, names: Sequence[str]) -> dict[str, str]:
        """Return the given topics with an unsupported compression codec → codec name."""
        async with admin(self._settings) as client:
            configs = await current_configs(client, names)
        kinds = {name: found.get(COMPRESSION, READABLE_DEFAULT) for name, found in configs.items()}
        return {name: kind for name, kind in kinds.items() if kind not in codecs.READABLE}

    async def held(self, there: Mapping[str, int]) -> dict[TopicPartition, int]:
        """Return the partitions of the given topics with records behind an open transaction → number of records."""
        tps = [TopicPartition(topic, number) for topic, wide in there.items() for number in range(wide)]
        async with admin(self._settings) as client:
            stable = await _offsets(client, tps, LATEST)
            ends = await _offsets(client, tps, LATEST, isolation=0)
            # Read again: records written between the two requests are not behind a transaction.
            again = await _offsets(client, tps, LATEST)
        return {tp: ends[tp] - at for tp, at in stable.items() if at < ends[tp] and again[tp] == at}

    async def lags(self, wanted: Sequence[tuple[str, str]]) -> list[Lag]:
        """Return the lag of pairs of group and topic; missing topics are omitted."""
        if not wanted:
            return []
        async with admin(self._settings) as client:
            there = await partition_counts(client, {topic for _, topic in wanted})
            wanted = [pair for pair in wanted if pair[1] in there]
            declared = declared_topics(self._settings)
            # Partitions that somebody added to a declared topic are read by no group of Headrace.
            there |= {name: min(there[name], declared[name].partitions) for name in there.keys() & declared.keys()}
            tps = [TopicPartition(topic, p) for topic in {topic for _, topic in wanted} for p in range(there[topic])]
            groups = list(dict.fromkeys(group for group, _ in wanted))
            committed = dict(zip(groups, await _each(groups, lambda group: _committed(client, group)), strict=True))
            # After the positions, so that a group never appears ahead of its topic.
            ends, begins = await _offsets(client, tps, LATEST), await _offsets(client, tps, EARLIEST)
        return [
            Lag(
                group,
                topic,
                {
                    tp.partition: max(committed[group].get(tp, 0), begins[tp])
                    for tp in (TopicPartition(topic, p) for p in range(there[topic]))
                },
                {p: ends[TopicPartition(topic, p)] for p in range(there[topic])},
            )
            for group, topic in wanted
        ]

    async def members(self, groups: Sequence[str]) -> dict[str, list[Member]]:
        """Return the members of each group; none for a group that does not exist."""
        if not groups:
            return {}
        found: dict[str, list[Member]] = {}
        async with admin(self._settings) as client:
            homes = await _each(groups, client.find_coordinator)
            by_home: dict[Any, list[str]] = defaultdict(list)
            for group, home in zip(groups, homes, strict=True):
                by_home[home].append(group)
            for home, at_home in by_home.items():
                response = await client_of(client).send(home, _DescribeGroups(at_home))
                for _, group, _, _, _, members in response.groups:
                    found[group] = [_member(*member) for member in members]
        return found

    async def record_counts(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return partition → number of offsets between its first record and its end."""
        async with admin(self._settings) as client:
            begins, ends = await _offsets(client, tps, EARLIEST), await _offsets(client, tps, LATEST)
        return {tp: max(0, ends[tp] - begins[tp]) for tp in tps}

    async def delete_before(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Delete the records before these offsets permanently; returns the first remaining offset of each partition."""
        async with admin(self._settings) as client:
            deleted: dict[TopicPartition, int] = await client.delete_records(
                {tp: RecordsToDelete(before_offset=offset) for tp, offset in offsets.items()}
            )
            return deleted

    @asynccontextmanager
    async def reading(self, topics: Iterable[str]) -> AsyncIterator[LogReader]:
        """Read single records of some topics."""
        lookup = LogReader(self._settings, name=self._name)
        try:
            await lookup.open(list(topics))
            yield lookup
        finally:
            await lookup.close()


class _DescribeGroups(DescribeGroupsRequest):  # type: ignore[misc]  # aiokafka ships no types
    """Pinned to version 2: aiokafka 0.14 decodes responses of version 3 with the schema of version 2.

    That works for one group and breaks the connection for two, because each group has one more field.
    """

    def prepare(self, _: object) -> Any:
        return self.build(DescribeGroupsRequest_v2)


async def _each(items: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    few = asyncio.Semaphore(AT_ONCE)

    async def one(item: str) -> T:
        async with few:
            return await ask(item)

    return await asyncio.gather(*(one(item) for item in items))


async def _committed(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    return {tp: found.offset for tp, found in (await client.list_consumer_group_offsets(group)).items()}


async def _offsets(
    client: AIOKafkaAdminClient, tps: Sequence[TopicPartition], at: int, *, isolation: int = 1
) -> dict[TopicPartition, int]:
    """Ask each leader once for all of its partitions."""
    if not tps:
        return {}
    connection = client_of(client)  # the admin client's public call asks for one partition at a time
    await connection.set_topics({tp.topic for tp in tps})
    async with asyncio.timeout(TIMEOUT_S):
        found = await retried(connection, lambda connected: offsets_at(connected, tps, at, isolation=isolation))
    return {tp: max(0, offset) for tp, offset in found.items()}


def _member(_: str, client: str, host: str, __: bytes, assignment: bytes) -> Member:
    assigned = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
    owned = tuple(TopicPartition(topic, number) for topic, numbers in assigned for number in numbers)
    return Member(client, host.lstrip("/"), owned)
