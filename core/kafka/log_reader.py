"""Read single records by offset, and search a partition for a key.

Plain fetch requests instead of a consumer: a consumer has one position per partition and reads ahead, so look-ups
would have to queue for it and discard its buffer. Requests are independent; many may be in flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, LeaderNotAvailableError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from core.errors import Unavailable
from core.kafka.aiokafka_patches import add_topics
from core.kafka.fetching import READ_COMMITTED, report_unread
from core.kafka.offsets import EARLIEST, LATEST, offsets_at, retried, widths_asked, widths_of
from core.kafka.record_format import Unpacked, Unread
from core.kafka.unpacking import Unpacking
from core.settings.models import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S = 3.0
"""Time limit of one operation: a client waits for the response."""
FETCH_WAIT_MS = 50
OPEN_TRIES = 5
ONE_BATCH_BYTES = 1
"""Fetch limit; a broker returns at least the first batch, even if it is larger."""
SCAN_BYTES = 262_144
MINIMAL = 2
"""Fields of a partition before the last stable offset in the oldest response version with transactions."""


class LogRecord(NamedTuple):
    """One record of the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class _Fetched(NamedTuple):
    """Result of one fetch."""

    records: Sequence[Unpacked]
    following: int
    """The next offset after the records."""
    stable: int
    """Last stable offset: end of the committed records."""
    end: int
    """High watermark: end of all records."""


class LogReader:
    """Reads offsets and records, with a time limit; raises Unavailable when the broker does not answer."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client: AIOKafkaClient | None = None

    async def open(self, topics: Sequence[str]) -> None:
        """Connect and fetch the metadata of these topics; raises Unavailable."""
        self._client = AIOKafkaClient(
            bootstrap_servers=self._settings.kafka.bootstrap,
            client_id=f"{self._name}-lookup",
            request_timeout_ms=int(self._settings.kafka.request_timeout_s * 1000),
        )
        async with _bounded("connect"):
            await self._client.bootstrap()
            await self._client.set_topics(topics)

    async def open_with_retry(self, topics: Sequence[str]) -> None:
        """Connect, with retries when the broker is busy; raises Unavailable."""
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

    async def read(self, tp: TopicPartition, offset: int) -> LogRecord | None:
        """Return the record at an offset; None if it does not exist (any longer or yet) or cannot be decoded."""
        async with _bounded(f"read {tp.topic}/{tp.partition}@{offset}"):
            for certain in (False, True):
                try:
                    fetched = await self._fetch(tp, offset, ONE_BATCH_BYTES, certain=certain)
                except OffsetOutOfRangeError:
                    return None
                if fetched.stable > offset or fetched.stable == fetched.end:
                    break  # otherwise it is behind an open transaction, where non-transactional records may be read
            return next((record for record in _readable(tp, fetched.records) if record.offset == offset), None)

    async def find(self, tp: TopicPartition, key: bytes, *, from_ms: int) -> LogRecord | None:
        """Search for a key from a timestamp up to the current end of the partition.

        Also behind an open transaction: non-transactional records there are as final as those before it.
        """
        async with _bounded(f"search {tp.topic}/{tp.partition}"):
            offset, end = await self._offset(tp, from_ms), (await self._offsets([tp], LATEST, isolation=0))[tp]
            for certain in (False, True):
                while offset is not None and offset < end:
                    try:
                        fetched = await self._fetch(tp, offset, SCAN_BYTES, certain=certain)
                    except OffsetOutOfRangeError:
                        return None
                    for record in _readable(tp, fetched.records):
                        if record.key == key:
                            return record
                    if fetched.following <= offset:
                        break
                    offset = fetched.following
        return None

    async def first(self, tp: TopicPartition, offset: int, end: int) -> int | None:
        """Return the offset of the first record at or after an offset, decodable or not; None if there is none."""
        async with _bounded(f"read {tp.topic}/{tp.partition}@{offset}"):
            while offset < end:
                fetched = await self._fetch(tp, offset, ONE_BATCH_BYTES)
                if fetched.records:
                    return fetched.records[0].offset
                if fetched.following <= offset:
                    break
                offset = fetched.following
        return None

    async def first_record(self, tp: TopicPartition, offset: int, end: int) -> LogRecord | None:
        """Return the first decodable record at or after an offset; None if there is none."""
        async with _bounded(f"read {tp.topic}/{tp.partition}@{offset}"):
            async for record in self._read_range(tp, offset, end, ONE_BATCH_BYTES):
                return record
        return None

    async def scan(self, tp: TopicPartition, *, from_ms: int) -> AsyncIterator[LogRecord]:
        """Yield the records from a timestamp up to the current end of the partition; the caller sets a time limit."""
        offset = await self._offset(tp, from_ms)
        end = await self._offset(tp, LATEST) or 0
        if offset is not None:
            async for record in self.read_range(tp, offset, end):
                yield record

    def read_range(self, tp: TopicPartition, offset: int, end: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the records of a half-open offset range; the caller sets a time limit.

        Offsets may have gaps. It waits for open transactions; `bounds` returns no end behind one.
        """
        return self._read_range(tp, offset, end, SCAN_BYTES)

    async def _read_range(
        self, tp: TopicPartition, offset: int, end: int, limit: int
    ) -> AsyncGenerator[LogRecord, None]:
        while offset < end:
            try:
                fetched = await self._fetch(tp, offset, limit)
            except OffsetOutOfRangeError:
                return
            for record in _readable(tp, fetched.records):
                if record.offset < end:
                    yield record
            offset = max(fetched.following, offset)

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int | None:
        """Return the offset of the first record at or after a timestamp; None if all are older."""
        async with _bounded(f"ask for offsets of {tp.topic}"):
            return await self._offset(tp, at_ms)

    async def bounds(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first and the next offset of partitions, up to the first open transaction."""
        async with _bounded("ask for offsets"):
            # In this order: a deletion in between must not put the first offset behind the next one.
            begins, ends = await self._offsets(tps, EARLIEST), await self._offsets(tps, LATEST)
        return {tp: (max(0, begins[tp]), max(0, ends[tp])) for tp in tps}

    async def widths(self, names: Collection[str]) -> dict[str, int]:
        """Return topic → number of partitions for the given topics that exist, and keep their metadata."""
        if not names:
            return {}

        async def ask(client: AIOKafkaClient) -> dict[str, int]:
            node = client.get_random_node()
            if node is None:
                raise LeaderNotAvailableError
            found = widths_of(await client.send(node, widths_asked(list(names))))
            await add_topics(client, found)
            return found

        async with _bounded("ask for topics"):
            return await self._patiently(ask)

    async def ends(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the next offset of partitions."""
        if not tps:
            return {}
        async with _bounded("ask for offsets"):
            return await self._offsets(list(tps), LATEST)

    async def _fetch(self, tp: TopicPartition, offset: int, limit: int, *, certain: bool = False) -> _Fetched:
        """Fetch committed records from an offset; with `certain` only non-transactional ones."""
        isolation = 0 if certain else READ_COMMITTED

        async def once(client: AIOKafkaClient, leader: int) -> _Fetched:
            request = FetchRequest(FETCH_WAIT_MS, 1, limit, isolation, [(tp.topic, [(tp.partition, offset, limit)])])
            response = await client.send(leader, request)
            ((_, ((_, code, end, stable, *rest),)),) = response.topics
            if code:
                raise for_code(code)
            aborted = rest[1] if len(rest) > MINIMAL else rest[0]
            unpacking = Unpacking(bytes(rest[-1] or b""), offset, aborted, certain=certain)
            return _Fetched(list(unpacking), unpacking.position, stable, end)

        return await self._led(tp, once)

    async def _offset(self, tp: TopicPartition, at_ms: int) -> int | None:
        offset = (await self._offsets([tp], at_ms))[tp]
        return offset if offset >= 0 else None

    async def _offsets(
        self, tps: Sequence[TopicPartition], at_ms: int, *, isolation: int = READ_COMMITTED
    ) -> dict[TopicPartition, int]:
        return await self._patiently(lambda client: offsets_at(client, tps, at_ms, isolation=isolation))

    async def _led(self, tp: TopicPartition, once: Callable[[AIOKafkaClient, int], Awaitable[T]]) -> T:
        """Send a request to the leader of a partition, again after it has moved; the caller sets a time limit."""

        async def ask(client: AIOKafkaClient) -> T:
            leader = client.cluster.leader_for_partition(tp)
            if leader is None or leader == -1:
                raise LeaderNotAvailableError(str(tp))
            return await once(client, leader)

        return await self._patiently(ask)

    async def _patiently(self, ask: Callable[[AIOKafkaClient], Awaitable[T]]) -> T:
        """Send requests, with retries while leaders move; the caller sets a time limit."""
        if self._client is None:
            raise Unavailable
        return await retried(self._client, ask)


def _readable(tp: TopicPartition, records: Sequence[Unpacked]) -> Iterator[LogRecord]:
    """Return the decodable records, and log the others."""
    for one in records:
        if isinstance(one.headers, Unread):
            report_unread(tp.topic, tp.partition, one.offset, one.headers)
        else:
            yield LogRecord(tp.topic, tp.partition, one.offset, one.timestamp, one.key, one.value, one.headers)


@asynccontextmanager
async def _bounded(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (TimeoutError, KafkaError, OSError) as error:
        log.warning("cannot %s: %s", what, str(error) or type(error).__name__, extra={"event": "log_read_failed"})
        raise Unavailable("Kafka cannot be read now; try again in some seconds") from error
