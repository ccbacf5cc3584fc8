"""Read single records by their position, and search a partition for a key.

Plain fetch requests instead of a consumer: a consumer has one position per partition and reads ahead, so look-ups
would have to queue for it and would throw away what it had read. A request stands for itself; many may be under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, LeaderNotAvailableError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from core.errors import Unavailable
from core.kafka.offsets import EARLIEST, LATEST, offsets_at, retried
from core.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 3.0
"""A client waits for the answer; a broker that needs longer is as good as away."""
FETCH_WAIT_MS = 50
OPEN_TRIES = 5
ONE_BATCH_BYTES = 1
"""A broker sends at least the first batch, however small the limit is."""
SCAN_BYTES = 262_144


class Found(NamedTuple):
    """One record as it stands in the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Lookup:
    """Answers where and what, bounded in time; raises Unavailable when the broker does not answer."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client: AIOKafkaClient | None = None

    async def open(self, topics: Sequence[str]) -> None:
        """Connect and learn who leads the partitions of these topics; raises Unavailable."""
        self._client = AIOKafkaClient(
            bootstrap_servers=self._settings.kafka.bootstrap,
            client_id=f"{self._name}-lookup",
            request_timeout_ms=int(self._settings.kafka.request_timeout_s * 1000),
        )
        async with _bounded("connect"):
            await self._client.bootstrap()
            await self._client.set_topics(topics)

    async def open_patiently(self, topics: Sequence[str]) -> None:
        """Connect, more than once when the broker is busy: what runs beside must not end for it; raises Unavailable."""
        for _ in range(OPEN_TRIES - 1):
            try:
                await self.open(topics)
            except Unavailable:
                await self.close()
            else:
                return
        await self.open(topics)

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()

    async def read(self, tp: TopicPartition, offset: int) -> Found | None:
        """Return the record at an offset; None when it is no longer, or not yet, there."""
        async with _bounded(f"read {tp.topic}/{tp.partition}@{offset}"):
            try:
                records, _ = await self._fetch(tp, offset, ONE_BATCH_BYTES)
            except OffsetOutOfRangeError:
                return None
        return next((record for record in records if record.offset == offset), None)

    async def find(self, tp: TopicPartition, key: bytes, *, from_ms: int) -> Found | None:
        """Search for a key from a time up to the end of the partition as it is now."""
        async with _bounded(f"search {tp.topic}/{tp.partition}"):
            async for record in self.scan(tp, from_ms=from_ms):
                if record.key == key:
                    return record
        return None

    async def scan(self, tp: TopicPartition, *, from_ms: int) -> AsyncIterator[Found]:
        """Yield the records from a time up to the end of the partition as it is now; bounded by the caller."""
        offset = await self._offset(tp, from_ms)
        end = await self._offset(tp, LATEST) or 0
        if offset is not None:
            async for record in self.between(tp, offset, end):
                yield record

    async def between(self, tp: TopicPartition, offset: int, end: int) -> AsyncGenerator[Found, None]:
        """Yield the records from an offset up to, but not with, another; bounded by the caller."""
        while offset < end:
            try:
                records, following = await self._fetch(tp, offset, SCAN_BYTES)
            except OffsetOutOfRangeError:
                return
            for record in records:
                if record.offset < end:
                    yield record
            offset = max(following, offset)

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int | None:
        """Return the offset of the first record that is not older; None when all are."""
        async with _bounded(f"ask for offsets of {tp.topic}"):
            return await self._offset(tp, at_ms)

    async def bounds(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first and the next offset of partitions."""
        async with _bounded("ask for offsets"):
            # In this order: what is deleted meanwhile must not put the first offset behind the next one.
            begins, ends = await self._offsets(tps, EARLIEST), await self._offsets(tps, LATEST)
        return {tp: (max(0, begins[tp]), max(0, ends[tp])) for tp in tps}

    async def _fetch(self, tp: TopicPartition, offset: int, limit: int) -> tuple[list[Found], int]:
        """Return the records of one fetch from an offset on, and the offset that follows them."""

        async def once(client: AIOKafkaClient, leader: int) -> tuple[list[Found], int]:
            request = FetchRequest(FETCH_WAIT_MS, 1, limit, 0, [(tp.topic, [(tp.partition, offset, limit)])])
            response = await client.send(leader, request)
            ((_, ((_, code, _, *rest),)),) = response.topics
            if code:
                raise for_code(code)
            return _records(tp, rest[-1], offset)

        return await self._led(tp, once)

    async def _offset(self, tp: TopicPartition, at_ms: int) -> int | None:
        offset = (await self._offsets([tp], at_ms))[tp]
        return offset if offset >= 0 else None

    async def _offsets(self, tps: Sequence[TopicPartition], at_ms: int) -> dict[TopicPartition, int]:
        return await self._patiently(lambda client: offsets_at(client, tps, at_ms))

    async def _led(self, tp: TopicPartition, once: Callable[[AIOKafkaClient, int], Awaitable[T]]) -> T:
        """Ask the leader of a partition, again when it has moved; the caller bounds the time."""

        async def ask(client: AIOKafkaClient) -> T:
            leader = client.cluster.leader_for_partition(tp)
            if leader is None or leader == -1:
                raise LeaderNotAvailableError(str(tp))
            return await once(client, leader)

        return await self._patiently(ask)

    async def _patiently(self, ask: Callable[[AIOKafkaClient], Awaitable[T]]) -> T:
        """Ask, again while leaders move; the caller bounds the time."""
        if self._client is None:
            raise Unavailable
        return await retried(self._client, ask)


def _records(tp: TopicPartition, raw: Any, begin: int) -> tuple[list[Found], int]:
    """Unpack what a fetch returned; a batch may begin before the offset that was asked for."""
    out: list[Found] = []
    following = begin
    batches = MemoryRecords(bytes(raw or b""))
    while batches.has_next():
        batch = batches.next_batch()
        following = max(following, batch.next_offset)
        if batch.is_control_batch:
            continue
        out += [
            Found(tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value, record.headers)
            for record in batch
            if record.offset >= begin
        ]
    return out, following


@asynccontextmanager
async def _bounded(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (TimeoutError, KafkaError, OSError) as error:
        log.warning("cannot %s: %s", what, str(error) or type(error).__name__, extra={"event": "lookup_failed"})
        raise Unavailable("Kafka cannot be read now; try again in some seconds") from error
