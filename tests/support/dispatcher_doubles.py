"""Doubles: a producer that stores records in memory, and rejects them on request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas.records import Work
from tests.support.records import task_id


class MemoryProducer(Producer):
    """Stores records in order; `blocked` rejects them, `hold` delays a write until it is set."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings(), name="memory")
        self.written: list[tuple[str, int, Record]] = []
        self.writes = 0
        self.blocked = False
        self.hold: asyncio.Event | None = None

    async def send_batch(self, records: Mapping[tuple[str, int], Sequence[Record]]) -> dict[tuple[str, int], list[int]]:
        await self._write([(topic, partition, one) for (topic, partition), all_ in records.items() for one in all_])
        return {}

    async def send(self, topic: str, partition: int, record: Record) -> int:
        await self._write([(topic, partition, record)])
        return len(self.written)

    async def enqueue(self, topic: str, partition: int, record: Record) -> asyncio.Future[Any]:
        await self._write([(topic, partition, record)])
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def _write(self, records: list[tuple[str, int, Record]]) -> None:
        self.writes += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.blocked:
            raise Unavailable
        self.written += records


def work(**changes: Any) -> Work:
    """Build a work record."""
    base: Work = {
        "id": task_id(),
        "queue": "chat",
        "level": 0,
        "endpoint": "/v1/chat/completions",
        "mode": "callback",
        "attempt": 1,
        "data": b"{}",
        "data_ref": None,
        "model": None,
        "owner": None,
        "created_ms": 1,
        "deadline_ms": 2_000_000,
        "run_timeout_ms": 0,
        "content_type": "application/json",
    }
    return {**base, **changes}  # type: ignore[typeddict-item]
