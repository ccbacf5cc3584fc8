"""Read what workers have said from the events topics, all partitions of a level side by side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.offsets import LATEST
from core.settings.models import Settings
from dispatcher.inference.seen_attempts import Positions, attempt_of
from schemas import topics

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 10.0
"""What takes longer is broken off, as unanswered; the next turn goes on where this one was."""


class AttemptEventReader:
    """The events of both levels."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._lookup = LogReader(settings, name=f"{name}-said")

    async def open(self) -> None:
        """Connect; raises Unavailable."""
        await self._lookup.open_with_retry([self._topic(level) for level in range(len(topics.LEVELS))])

    async def close(self) -> None:
        """Disconnect."""
        await self._lookup.close()

    async def read(self, level: int, since_ms: int, positions: Positions, add: Callable[[bytes], None]) -> None:
        """Add every attempt of which a worker speaks up to the end as it is now; raises Unavailable."""
        tps = [TopicPartition(self._topic(level), partition) for partition in range(self._settings.kafka.partitions)]
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), asyncio.TaskGroup() as group:
                for tp in tps:
                    group.create_task(self._partition(tp, since_ms, positions, add))
        except* (TimeoutError, KafkaError, OSError, Unavailable) as errors:
            log.warning("cannot read what was said: %s", errors, extra={"event": "said_unread"})
            raise Unavailable from errors

    async def _partition(
        self, tp: TopicPartition, since_ms: int, positions: Positions, add: Callable[[bytes], None]
    ) -> None:
        end = await self._lookup.offset_at(tp, LATEST) or 0
        if tp.partition not in positions:
            first = await self._lookup.offset_at(tp, since_ms)
            positions[tp.partition] = end if first is None else min(first, end)
        async for record in self._lookup.read_range(tp, positions[tp.partition], end):
            attempt = attempt_of(record)
            if attempt is not None:
                add(attempt)
            positions[tp.partition] = record.offset + 1

    def _topic(self, level: int) -> str:
        return self._settings.topic(topics.events(level))
