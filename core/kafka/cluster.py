"""What the cluster tells of topics and consumer groups: how far each has read, who its members are.

For people and for `doctor`, not for the hot path: every call has connections of its own, so that nothing of it is in
the way of the work, and nothing has to be kept alive in between.
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
from core.kafka.admin import COMPRESSION, READABLE_DEFAULT, admin, current_configs, partition_counts
from core.kafka.log_reader import TIMEOUT_S, LogReader
from core.kafka.offsets import EARLIEST, LATEST, offsets_at, retried
from core.settings.models import Settings

T = TypeVar("T")

AT_ONCE = 16
"""Questions under way at once: hundreds of queues must not be a storm."""


class Lag(NamedTuple):
    """How far a group has read one topic."""

    group: str
    topic: str
    positions: Mapping[int, int]
    """The next record per partition; the first there is where the group has committed nothing."""
    ends: Mapping[int, int]

    @property
    def waiting(self) -> int:
        """Count the records that the group has not read."""
        return sum(max(0, end - self.positions[partition]) for partition, end in self.ends.items())

    @property
    def read(self) -> int:
        """Sum the positions: what it grows by between two looks has been read meanwhile."""
        return sum(self.positions.values())


class Member(NamedTuple):
    """A consumer in a group."""

    client: str
    host: str
    partitions: tuple[TopicPartition, ...]


class Cluster:
    """Questions to one cluster; each raises Unavailable when no broker answers."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name

    async def topics(self, names: Iterable[str]) -> dict[str, int]:
        """Return the number of partitions of those of some topics that exist."""
        async with admin(self._settings) as client:
            return await partition_counts(client, names)

    async def unreadable(self, names: Sequence[str]) -> dict[str, str]:
        """Return those of some topics whose records are written in a codec that cannot be read, with its name."""
        async with admin(self._settings) as client:
            configs = await current_configs(client, names)
        kinds = {name: found.get(COMPRESSION, READABLE_DEFAULT) for name, found in configs.items()}
        return {name: kind for name, kind in kinds.items() if kind not in codecs.READABLE}

    async def held(self, there: Mapping[str, int]) -> dict[TopicPartition, int]:
        """Return the partitions of some topics in which records wait for the end of a transaction, and how many."""
        tps = [TopicPartition(topic, number) for topic, wide in there.items() for number in range(wide)]
        async with admin(self._settings) as client:
            stable = await _offsets(client, tps, LATEST)
            ends = await _offsets(client, tps, LATEST, isolation=0)
            # Once more: of what came in between the two looks nothing waits for a transaction.
            again = await _offsets(client, tps, LATEST)
        return {tp: ends[tp] - at for tp, at in stable.items() if at < ends[tp] and again[tp] == at}

    async def lags(self, wanted: Sequence[tuple[str, str]]) -> list[Lag]:
        """Tell for pairs of group and topic how far one has read the other; a topic that is not there is left out."""
        if not wanted:
            return []
        async with admin(self._settings) as client:
            there = await partition_counts(client, {topic for _, topic in wanted})
            wanted = [pair for pair in wanted if pair[1] in there]
            tps = [TopicPartition(topic, p) for topic in {topic for _, topic in wanted} for p in range(there[topic])]
            groups = list(dict.fromkeys(group for group, _ in wanted))
            committed = dict(zip(groups, await _each(groups, lambda group: _committed(client, group)), strict=True))
            # After the positions: a group is never shown ahead of its topic.
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
        """Return the members of each group; none for one that is not there."""
        if not groups:
            return {}
        found: dict[str, list[Member]] = {}
        async with admin(self._settings) as client:
            homes = await _each(groups, client.find_coordinator)
            by_home: dict[Any, list[str]] = defaultdict(list)
            for group, home in zip(groups, homes, strict=True):
                by_home[home].append(group)
            for home, at_home in by_home.items():
                response = await client._client.send(home, _DescribeGroups(at_home))  # noqa: SLF001
                for _, group, _, _, _, members in response.groups:
                    found[group] = [_member(*member) for member in members]
        return found

    async def delete_before(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Delete the records before these offsets for good; returns the first that is left of each partition."""
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
    """Held to version 2: aiokafka 0.14 reads the answers to version 3 with the schema of version 2.

    That goes well for one group and breaks the connection for two, because each has a field more.
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
    await client._client.set_topics({tp.topic for tp in tps})  # noqa: SLF001 - the public call asks one partition at a time
    async with asyncio.timeout(TIMEOUT_S):
        found = await retried(client._client, lambda connected: offsets_at(connected, tps, at, isolation=isolation))  # noqa: SLF001
    return {tp: max(0, offset) for tp, offset in found.items()}


def _member(_: str, client: str, host: str, __: bytes, assignment: bytes) -> Member:
    assigned = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
    owned = tuple(TopicPartition(topic, number) for topic, numbers in assigned for number in numbers)
    return Member(client, host.lstrip("/"), owned)
