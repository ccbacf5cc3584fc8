"""Member of a consumer group, with a tracker per partition of the offsets that may be committed.

A consumer that fails repeatedly is replaced. getmany is never cancelled: a cancelled one corrupts aiokafka's idle
accounting (its fetch counter has no finally).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError

from core.clock import Deadline, epoch_ms
from core.kafka.aiokafka_patches import client_of, on_heartbeat, wait_for_metadata
from core.kafka.fetching import COMMITTED, patch_fetching, position_of
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.offset_tracker import OffsetTracker

log = logging.getLogger(__name__)

POLL_MS = 200
SESSION_TIMEOUT_MS = 6_000
"""Time for which the partitions of a killed dispatcher are not consumed, and its successor waits to join; Kafka allows
no less. Measured by killing one at random moments: new work after up to 17 s with 10 s here."""
CONFIRM_WITHIN_S = SESSION_TIMEOUT_MS / 1000 * 0.9
"""Without a confirmed heartbeat for so long, the group may have given the partitions to another member."""
CONFIRM_POLL_S = 0.05
HEARTBEAT_MS = 1_500
REBALANCE_TIMEOUT_MS = 15_000
"""Above the time that a revoke may take: the other members wait this long for a member that still commits."""
MAX_POLL_INTERVAL_MS = 86_400_000
"""Polls happen only when there is capacity, so a busy worker may not poll for as long as its calls last."""
FETCH_BYTES = 262_144
"""Read-ahead per partition; getmany empties one partition after the other, so a larger value is less fair."""
COMMIT_TIMEOUT_S = 5.0
METADATA_REFRESH_S = 1.0
BACKOFF_S = 0.5
MAX_FAILURES = 5


class ReceivedRecord(NamedTuple):
    """A record with the tracker of its partition."""

    record: Any
    tracker: OffsetTracker


class GroupConsumer:
    """One member of a group; `on_revoke` is awaited while it still owns the partitions."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        group: str,
        topics: Sequence[str],
        on_revoke: Callable[[], Awaitable[None]],
        fetch_bytes: int = FETCH_BYTES,
    ) -> None:
        self._fetch_bytes = fetch_bytes
        self._settings = settings
        self.name = name
        self._group = group
        self._topics = topics
        self._on_revoke = on_revoke
        self._consumer: Any = None
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._failures = 0
        self._joined = False
        self._confirmed_at = 0.0
        self._refreshed_at = 0.0
        self.assigned_ms = 0
        """When partitions were assigned last: epoch ms, and below by the monotonic clock."""
        self.assigned_at = 0.0

    @property
    def assigned(self) -> bool:
        """Return whether this member has its assignment, which may be empty."""
        return self._joined

    async def open(self) -> bool:
        """Join the group unless it has; after a failure wait a moment and return False."""
        if self._consumer is None:
            try:
                self._consumer = await self._join()
            except (KafkaError, OSError, TimeoutError) as error:
                await self._wait_after(error)
                return False
        return True

    async def poll(self, max_records: int) -> list[ReceivedRecord]:
        """Return the next records, none after 200 ms without any; after a failure wait a moment and return none."""
        if not await self.open():
            return []
        self._refresh_missing_topics()
        try:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=max_records)
        except ConsumerStoppedError:
            return []
        except (KafkaError, OSError, TimeoutError) as error:
            await self._wait_after(error)
            return []
        self._failures = 0
        received: list[ReceivedRecord] = []
        for tp, records in batches.items():
            tracker = self._trackers.get(tp)
            if tracker is None or not tracker.is_next(records[0].offset):
                tracker = self._trackers[tp] = OffsetTracker()
            for record in records:
                tracker.add(record.offset)
                received.append(ReceivedRecord(record, tracker))
        for tp, tracker in self._trackers.items():
            if (position := position_of(self._consumer, tp)) is not None:
                tracker.advance(position)
        return await self._still_owned(received)

    def _refresh_missing_topics(self) -> None:
        """Refresh the metadata while a topic is missing, so that its re-creation is noticed.

        aiokafka by itself refreshes every five minutes.
        """
        gone = any(not self._consumer.partitions_for_topic(topic) for topic in self._topics)
        if gone and time.monotonic() - self._refreshed_at > METADATA_REFRESH_S:
            self._refreshed_at = time.monotonic()
            client_of(self._consumer).force_metadata_update()

    async def _still_owned(self, received: list[ReceivedRecord]) -> list[ReceivedRecord]:
        """Leave out records of partitions that another member owns by now; a process that was paused learns of it late.

        Paused for longer than its session, a dispatcher started work that others had been assigned, in one of four
        tries.
        """
        give_up = time.monotonic() + SESSION_TIMEOUT_MS / 1000
        while received and self._consumer is not None and time.monotonic() - self._confirmed_at > CONFIRM_WITHIN_S:
            if time.monotonic() > give_up:
                log.warning(
                    "no heartbeat response from the group of %s; joining again",
                    self.name,
                    extra={"event": "consumer_unconfirmed"},
                )
                await self._replace()
                break
            await asyncio.sleep(CONFIRM_POLL_S)
        return [one for one in received if self.owns(one)]

    def pause(self, tp: TopicPartition) -> None:
        """Fetch nothing from a partition until it is resumed or assigned again."""
        if self._consumer is not None and tp in self._consumer.assignment():
            self._consumer.pause(tp)

    def resume(self, tp: TopicPartition) -> None:
        """Fetch from a partition again."""
        if self._consumer is not None and tp in self._consumer.assignment():
            self._consumer.resume(tp)

    @property
    def to_commit(self) -> dict[TopicPartition, int]:
        """Return the offsets that are safe and not committed yet."""
        return {tp: point for tp, tracker in self._trackers.items() if (point := tracker.to_commit()) is not None}

    async def commit(self, deadline: Deadline | None = None) -> bool:
        """Commit all safe offsets; False when it has to be retried."""
        points = self.to_commit
        if not points or self._consumer is None:
            return True
        noted = {tp: self._trackers[tp] for tp in points}
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S if deadline is None else deadline.left(COMMIT_TIMEOUT_S)):
                await self._consumer.commit(points)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            metrics.COMMIT_FAILURES.inc()
            log.info(
                "cannot commit the offsets of %s: %s", self.name, error or "timeout", extra={"event": "commit_failed"}
            )
            return False
        for tp, tracker in noted.items():
            tracker.committed(points[tp])
        return True

    async def close(self, deadline: Deadline) -> None:
        """Leave the group, so that its partitions are reassigned at once."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _stop(consumer, deadline.left())

    async def on_revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Await `on_revoke`, then drop the trackers; running calls continue without them."""
        try:
            await self._on_revoke()
        finally:
            for tp in partitions:
                self._trackers.pop(tp, None)
            self._joined = False

    def on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Start the trackers of newly assigned partitions."""
        self._trackers = {tp: OffsetTracker() for tp in partitions}
        self.assigned_ms, self.assigned_at = epoch_ms(), time.monotonic()
        self._note_confirmed()
        self._joined = True

    def _note_confirmed(self) -> None:
        self._confirmed_at = time.monotonic()

    def owns(self, received: ReceivedRecord) -> bool:
        """Return whether this member still has the assignment that a record was received in."""
        record = received.record
        return self._trackers.get(TopicPartition(record.topic, record.partition)) is received.tracker

    async def _join(self) -> Any:
        patch_fetching()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka.bootstrap,
            client_id=self.name,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=COMMITTED,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            max_partition_fetch_bytes=self._fetch_bytes,
            request_timeout_ms=int(self._settings.kafka.request_timeout_s * 1000),
        )
        try:
            await consumer.start()
            on_heartbeat(consumer, self._note_confirmed)
            for topic in self._topics:
                # A new topic may be missing in the first metadata, and a member that joins without it is assigned
                # nothing until the metadata is refreshed minutes later.
                await wait_for_metadata(consumer, topic)
            consumer.subscribe(topics=list(self._topics), listener=_Listener(self))
        except BaseException:
            await _stop(consumer, BACKOFF_S)
            raise
        return consumer

    async def _wait_after(self, error: BaseException) -> None:
        self._failures += 1
        log.warning(
            "cannot read %s: %s", self.name, str(error) or type(error).__name__, extra={"event": "consumer_failed"}
        )
        if self._failures % MAX_FAILURES == 0:
            await self._replace()
        await asyncio.sleep(BACKOFF_S)

    async def _replace(self) -> None:
        """Join again at the next poll: uncommitted records are received again, and recognised by task and attempt."""
        consumer, self._consumer = self._consumer, None
        self._trackers, self._joined = {}, False
        if consumer is not None:
            await _stop(consumer, COMMIT_TIMEOUT_S)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    def __init__(self, reader: GroupConsumer) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._reader.on_revoked(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._reader.on_assigned(assigned)


async def _stop(consumer: Any, seconds: float) -> None:
    """Stop a consumer within a time limit: aiokafka's own stop waits for a coordinator that may be unavailable."""
    task = asyncio.create_task(consumer.stop(), name="stop-consumer")
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
