"""Follow topics with manual assignment, without a consumer group, so that no rebalance interrupts a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from core.kafka.aiokafka_patches import refresh_metadata
from core.kafka.fetching import COMMITTED, patch_fetching, position_of, skip_unreadable
from core.settings.models import Settings

log = logging.getLogger(__name__)

Records = Sequence[ConsumerRecord[bytes, bytes]]
Handler = Callable[[TopicPartition, Records], None]
POLL_MS = 200
"""Poll interval, which bounds a stop: getmany is never cancelled, because that breaks aiokafka's idle accounting."""
BACKOFF_S = 0.5
FETCH_WAIT_MS = 1_000
"""Maximum wait of an empty fetch at the broker; new records are returned immediately. A process has many followers."""


class TopicFollower:
    """Passes every record of some partitions to a handler, in order per partition, and exposes its positions.

    Records that cannot be decoded are skipped and logged; records of a transaction are read after its commit.

    The handler must not raise: records are not read again. `begin` may give an offset per partition; all others start
    at `start`. With `rest_s` it pauses that long after each batch unless a caller waits (`low_latency`): for readers
    whose latency does not matter. The first record after a silence is passed on immediately, and those of a busy
    period in batches, which costs one fetch instead of one per record.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        topics: Sequence[str],
        handle: Handler,
        start: Literal["earliest", "latest"] = "earliest",
        begin: Mapping[TopicPartition, int] | None = None,
        max_partition_bytes: int = 1_048_576,
        rest_s: float = 0,
    ) -> None:
        self._settings = settings
        self.name = name
        self._topics = topics
        self._handle = handle
        self._start = start
        self._begin = dict(begin or {})
        self._max_partition_bytes = max_partition_bytes
        self._rest_s = rest_s
        self._hurried = 0
        self._hurry = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._targets: dict[TopicPartition, int] = {}
        self._moved = asyncio.Event()
        self.positions: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        """Assign the partitions, find the start positions and start to read; raises KafkaError."""
        patch_fetching()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka.bootstrap,
            client_id=self.name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=COMMITTED,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=self._max_partition_bytes,
            request_timeout_ms=int(self._settings.kafka.request_timeout_s * 1000),
        )
        await consumer.start()
        try:
            await self._assign(consumer)
        except BaseException:
            await consumer.stop()
            raise
        self._task = asyncio.create_task(self._run(consumer), name=f"follower-{self.name}")

    async def close(self) -> None:
        """Stop reading; takes at most one poll."""
        self._stopping = True
        self._hurry.set()
        if self._task is not None:
            await self._task

    @property
    def caught_up(self) -> bool:
        """Return whether all records that existed at the start have been read."""
        return bool(self.positions) and all(self.positions[tp] >= end for tp, end in self._targets.items())

    async def wait_caught_up(self) -> None:
        """Wait until all records that existed at the start have been read."""
        while not self.caught_up:
            await self._wait_move()

    async def wait_for_offset(self, tp: TopicPartition, offset: int) -> None:
        """Wait until the record at this offset has been handled; limit it with asyncio.timeout."""
        with self.low_latency():
            while self.positions.get(tp, -1) <= offset:
                await self._wait_move()

    @contextmanager
    def low_latency(self) -> Iterator[None]:
        """Disable the pause within the block, and end a pause in progress."""
        self._hurried += 1
        self._hurry.set()
        try:
            yield
        finally:
            self._hurried -= 1
            if not self._hurried:
                self._hurry.clear()

    async def _wait_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _assign(self, consumer: AIOKafkaConsumer[bytes, bytes]) -> None:
        assigned: list[TopicPartition] = []
        for topic in self._topics:
            partitions = await self._partitions(consumer, topic)
            assigned += [TopicPartition(topic, partition) for partition in sorted(partitions)]
        # Before the assignment: it starts a fetch, and a broker answers the requests of a connection in order,
        # so these would wait for that fetch, up to FETCH_WAIT_MS.
        ends = await consumer.end_offsets(assigned)
        beginnings = await consumer.beginning_offsets(assigned)
        consumer.assign(assigned)
        for tp in assigned:
            offset = self._begin.get(tp, ends[tp] if self._start == "latest" else beginnings[tp])
            offset = min(max(offset, beginnings[tp]), ends[tp])
            consumer.seek(tp, offset)
            self.positions[tp] = offset
        self._targets = dict(ends)

    async def _partitions(self, consumer: AIOKafkaConsumer[bytes, bytes], topic: str) -> set[int]:
        for _ in range(20):
            await refresh_metadata(consumer, topic)
            if partitions := consumer.partitions_for_topic(topic):
                return set(partitions)
            await asyncio.sleep(BACKOFF_S / 5)
        raise KafkaError(f"topic {topic} does not exist; run `headrace topics apply`")

    async def _rest(self) -> None:
        """Leave further records in aiokafka's buffer for a moment: until they are taken, nothing is fetched."""
        if not self._rest_s or self._stopping or not self.caught_up:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rest_s):
                await self._hurry.wait()

    def _follow(self, consumer: AIOKafkaConsumer[bytes, bytes]) -> bool:
        """Copy the consumer's positions; returns whether one has changed.

        They may be beyond the last record: transaction markers occupy offsets.
        """
        before = self.positions
        self.positions = {tp: at if (now := position_of(consumer, tp)) is None else now for tp, at in before.items()}
        for tp, position in self.positions.items():
            if position < before[tp]:
                log.warning(
                    "%s/%d was re-created: reading it from %d, after %d was reached",
                    *tp,
                    position,
                    before[tp],
                    extra={"event": "topic_recreated", "topic": tp.topic, "partition": tp.partition},
                )
                # What existed at the start is gone with the old topic; the new one may never grow to that offset.
                self._targets.pop(tp, None)
        return self.positions != before

    async def _run(self, consumer: AIOKafkaConsumer[bytes, bytes]) -> None:
        try:
            while not self._stopping:
                try:
                    batches = await consumer.getmany(timeout_ms=POLL_MS)
                except KafkaError as error:
                    log.warning("cannot read %s: %s", self.name, error, extra={"event": "follower_failed"})
                    await asyncio.sleep(BACKOFF_S)
                    continue
                for tp, records in batches.items():
                    if readable := skip_unreadable(records):
                        self._handle(tp, readable)
                if self._follow(consumer) or batches:
                    self._moved.set()
                if batches:
                    await self._rest()
        finally:
            # aiokafka awaits the fetches that it cancels and propagates their CancelledError when they wait for a
            # broker; it would replace the error that ends the process. This task itself is never cancelled.
            with suppress(asyncio.CancelledError):
                await consumer.stop()
