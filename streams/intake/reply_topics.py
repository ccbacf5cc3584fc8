"""Reply topics: a task may name a topic to which its result record is written, before its state record is.

These topics belong to other applications, so a faulty one must not block a level: they have a separate producer, one
topic is written at a time, and records that a topic will never accept are dropped and counted. The result is in
results.LEVEL in any case.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from aiokafka.errors import KafkaError

from core.errors import DeliveryFailed, Unavailable
from core.kafka.admin import admin, partition_counts
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas.partitioning import stable_hash

log = logging.getLogger(__name__)

FOUND_TTL_S, MISSING_TTL_S = 60.0, 5.0
"""How long a lookup is cached: a missing topic may be created at any time."""
KNOWN_TOPICS = 1_000
POLL_S = 0.05


class ReplyTopics:
    """Writes results to the reply topics of their tasks."""

    def __init__(self, settings: Settings, *, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._producer = Producer(settings, name=name)
        self._started = False
        self._seen: dict[str, tuple[int, float]] = {}

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic, 0 for a missing one; call `refresh` before."""
        return self._seen[topic][0] if topic in self._seen else 0

    async def refresh(self, topics: Iterable[str]) -> None:
        """Look up topics that are not cached; raises Unavailable."""
        now = self._clock()
        asked = [topic for topic in topics if topic not in self._seen or self._seen[topic][1] <= now]
        if not asked:
            return
        async with admin(self._settings) as client:
            there = await partition_counts(client, asked)
        if len(self._seen) > KNOWN_TOPICS:
            self._seen.clear()
        for topic in asked:
            count = there.get(topic, 0)
            self._seen[topic] = (count, now + (FOUND_TTL_S if count else MISSING_TTL_S))

    async def send(self, records: Mapping[str, list[Record]]) -> int:
        """Write records by topic and return how many were dropped; raises DeliveryFailed if Kafka is unavailable."""
        dropped = 0
        try:
            await self.refresh(records)
            if records and not self._started:
                await self._producer.start()
                self._started = True
        except Unavailable as error:
            raise DeliveryFailed(f"cannot write results to reply topics: {error}") from error
        for topic, replies in records.items():
            count = self.partition_count(topic)
            if count and await self._sent(topic, count, replies):
                continue
            dropped += len(replies)
            log.warning(
                "dropped %d results for the reply topic %s",
                len(replies),
                topic,
                extra={"event": "reply_failed"},
            )
        return dropped

    async def close(self) -> None:
        """Stop the producer."""
        if self._started:
            await self._producer.stop()

    async def _sent(self, topic: str, count: int, replies: list[Record]) -> bool:
        """Write to one topic; False if it will never accept these records."""
        packed: dict[tuple[str, int], list[Record]] = {}
        for reply in replies:
            partition = stable_hash((reply.key or b"").decode()) % count
            packed.setdefault((topic, partition), []).append(reply)
        try:
            await self._producer.send_batch(packed)
        except Unavailable as error:
            cause = error.__cause__
            final = isinstance(cause, KafkaError) and not cause.retriable
            if not final and not await self._was_deleted(topic):
                raise DeliveryFailed(f"cannot write results to the reply topic {topic}: {error}") from error
            await self._await_producer()
            return False
        return True

    async def _was_deleted(self, topic: str) -> bool:
        """Return whether a topic was deleted since the last lookup."""
        self._seen.pop(topic, None)
        try:
            await self.refresh([topic])
        except Unavailable:
            return False
        return not self.partition_count(topic)

    async def _await_producer(self) -> None:
        """Wait for the replacement of a failed producer, which is created in the background."""
        try:
            async with asyncio.timeout(self._settings.kafka.request_timeout_s):
                while True:
                    if self._producer.healthy:
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise DeliveryFailed("the producer for reply topics did not recover") from None
