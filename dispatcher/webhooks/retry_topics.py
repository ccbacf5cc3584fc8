"""Consumer of the retry topics: a partition is paused until its first record is due.

All records of one topic wait equally long from the time they were written, so records after the first are due later. An
offset is committed only when its record is completed: a kill -9 causes a repetition, never a loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from aiokafka import TopicPartition

from core.clock import Clock, Deadline, epoch_ms
from core.settings.models import Settings
from dispatcher.group_consumer import GroupConsumer, ReceivedRecord
from schemas import topics

GROUP = "webhooks-retry"
MAX_POLL_RECORDS = 200
FETCH_BYTES = 65_536
"""Per partition; 40 partitions in memory at once need some MB."""


class RetryTopicConsumer:
    """Receives the records that have waited for the delay of their topic."""

    def __init__(
        self, settings: Settings, *, name: str, on_revoke: Callable[[], Awaitable[None]], clock: Clock = epoch_ms
    ) -> None:
        self._clock = clock
        self._delays_ms = {settings.topic(topics.retry(each)): each * 1000 for each in topics.RETRY_DELAYS_S}
        self._waiting: dict[TopicPartition, deque[ReceivedRecord]] = {}
        self._heads: dict[TopicPartition, int] = {}
        self._on_revoke = on_revoke
        self._consumer = GroupConsumer(
            settings,
            name=name,
            group=settings.topic(GROUP),
            topics=[*self._delays_ms],
            on_revoke=self._revoked,
            fetch_bytes=FETCH_BYTES,
        )

    @property
    def assigned(self) -> bool:
        """Return whether this member has its assignment."""
        return self._consumer.assigned

    async def poll(self) -> list[ReceivedRecord]:
        """Return the due records; waits 200 ms when there are none."""
        for tp, waiting in self._waiting.items():
            if not waiting:
                self._consumer.resume(tp)
        self._waiting = {tp: waiting for tp, waiting in self._waiting.items() if waiting}
        for received in await self._consumer.poll(MAX_POLL_RECORDS):
            tp = TopicPartition(received.record.topic, received.record.partition)
            if tp not in self._waiting:
                self._waiting[tp] = deque()
                self._heads[tp] = received.record.offset
                self._consumer.pause(tp)
            self._waiting[tp].append(received)
        return [received for tp, waiting in self._waiting.items() for received in self._due(tp, waiting)]

    def heads(self) -> dict[TopicPartition, int]:
        """Return the offset of the first waiting record of each partition with records."""
        return dict(self._heads)

    async def commit(self, deadline: Deadline | None = None) -> bool:
        """Commit all safe offsets."""
        return await self._consumer.commit(deadline)

    async def close(self, deadline: Deadline) -> None:
        """Leave the group."""
        await self._consumer.close(deadline)

    def _due(self, tp: TopicPartition, waiting: deque[ReceivedRecord]) -> list[ReceivedRecord]:
        latest_ms = self._clock() - self._delays_ms[tp.topic]
        due: list[ReceivedRecord] = []
        while waiting and waiting[0].record.timestamp <= latest_ms:
            due.append(waiting.popleft())
            self._heads[tp] = due[-1].record.offset + 1
        return due

    async def _revoked(self) -> None:
        self._waiting, self._heads = {}, {}
        await self._on_revoke()
