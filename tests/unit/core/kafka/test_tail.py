"""How a tail ends."""

from __future__ import annotations

import asyncio

import pytest

from core.kafka import tail as module
from core.kafka.tail import Tail
from core.settings import Settings


class CancellingConsumer:
    """Stops as aiokafka does while a fetch waits for a broker: with the CancelledError of its own fetch."""

    def __init__(self, **_: object) -> None:
        self.stopped = False

    async def start(self) -> None:
        """Connect."""

    def assign(self, _: object) -> None:
        """Take nothing."""

    async def end_offsets(self, _: object) -> dict[object, int]:
        return {}

    beginning_offsets = end_offsets

    async def getmany(self, **_: int) -> dict[object, object]:
        await asyncio.sleep(0)
        return {}

    async def stop(self) -> None:
        self.stopped = True
        raise asyncio.CancelledError


async def test_closing_while_the_broker_is_away_cancels_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = CancellingConsumer()
    monkeypatch.setattr(module, "AIOKafkaConsumer", lambda **_: consumer)
    tail = Tail(Settings(), name="tail", topics=[], handle=lambda *_: None)
    await tail.open()
    await tail.close()
    assert consumer.stopped
