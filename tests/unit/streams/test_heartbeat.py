"""The scheduler heartbeat detects outages of Kafka, so that workers do not expire during one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.errors import Unavailable
from core.settings.models import Settings
from streams import heartbeat as module
from streams.heartbeat import SchedulerHeartbeat
from streams.state_index import StateIndex


class Broker:
    """Accepts heartbeats, or fails."""

    def __init__(self) -> None:
        self.down = False
        self.hangs: asyncio.Event | None = None

    async def send(self, *_: Any) -> int:
        if self.hangs is not None:
            await self.hangs.wait()
        if self.down:
            raise Unavailable
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000_000]
    monkeypatch.setattr(module, "epoch_ms", lambda: now[0])
    return now


def heartbeat(broker: Any) -> SchedulerHeartbeat:
    return SchedulerHeartbeat(
        Settings(), 0, name="s", producer=broker, index=StateIndex(), partitions={0}, changed=asyncio.Event()
    )


async def test_written_heartbeats_do_not_reset_the_time(clock: list[int]) -> None:
    beating = heartbeat(Broker())
    for _ in range(3):
        clock[0] += 2_000
        await beating._send_and_watch()
    assert beating.kafka_since_ms() == 1_000_000


async def test_a_failed_heartbeat_resets_the_time(clock: list[int]) -> None:
    broker = Broker()
    beating = heartbeat(broker)
    broker.down = True
    clock[0] += 5_000
    await beating._send_and_watch()
    assert beating.kafka_since_ms() == 1_005_000


async def test_a_hanging_heartbeat_counts_as_an_outage(clock: list[int]) -> None:
    broker = Broker()
    broker.hangs = asyncio.Event()
    beating = heartbeat(broker)
    hanging = asyncio.create_task(beating._send_and_watch())
    await asyncio.sleep(0)
    clock[0] += 7_000
    assert beating.kafka_since_ms() == 1_007_000
    broker.hangs.set()
    await hanging
    assert beating.kafka_since_ms() == 1_007_000
