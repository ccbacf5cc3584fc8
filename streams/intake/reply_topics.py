"""Reply topics: a task may name one, and its result record is written there as well, before anything tells of it.

They belong to others, so nothing that is wrong with one may hold up a lane: a producer of its own, one topic at a time,
and what such a topic will never take is dropped and counted. The result itself is in results.LEVEL in any case.
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
"""How long a look at the broker's topics counts: one that was missing may just have been made."""
KNOWN_TOPICS = 1_000
POLL_S = 0.05


class ReplyTopics:
    """Write results to the topics that their tasks name."""

    def __init__(self, settings: Settings, *, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._producer = Producer(settings, name=name)
        self._started = False
        self._seen: dict[str, tuple[int, float]] = {}

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has, 0 when it is not there; `look` has asked before."""
        return self._seen[topic][0] if topic in self._seen else 0

    async def refresh(self, topics: Iterable[str]) -> None:
        """Ask the broker for topics that are not known, or not known any more; raises Unavailable."""
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
        """Write records by topic and return how many were dropped; raises DeliveryFailed when Kafka is away."""
        dropped = 0
        try:
            await self.refresh(records)
            if records and not self._started:
                await self._producer.start()
                self._started = True
        except Unavailable as error:
            raise DeliveryFailed(f"results could not be written to reply topics: {error}") from error
        for topic, replies in records.items():
            count = self.partition_count(topic)
            if count and await self._sent(topic, count, replies):
                continue
            dropped += len(replies)
            log.warning(
                "%d results were not written to the reply topic %s",
                len(replies),
                topic,
                extra={"event": "reply_dropped"},
            )
        return dropped

    async def close(self) -> None:
        """Stop."""
        if self._started:
            await self._producer.stop()

    async def _sent(self, topic: str, count: int, replies: list[Record]) -> bool:
        """Write to one topic; False when it never will take them."""
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
                raise DeliveryFailed(f"results could not be written to the reply topic {topic}: {error}") from error
            await self._await_producer()
            return False
        return True

    async def _was_deleted(self, topic: str) -> bool:
        """Look whether a topic was deleted since the last look."""
        self._seen.pop(topic, None)
        try:
            await self.refresh([topic])
        except Unavailable:
            return False
        return not self.partition_count(topic)

    async def _await_producer(self) -> None:
        """Wait for the producer that takes the failed one's place; it is built in the background."""
        try:
            async with asyncio.timeout(self._settings.kafka.request_timeout_s):
                while True:
                    if self._producer.healthy:
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise DeliveryFailed("the producer of the reply topics does not come back") from None
