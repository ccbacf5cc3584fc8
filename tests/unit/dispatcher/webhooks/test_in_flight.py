"""Deliveries in flight, and how they are drained."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatcher.group_consumer import ReceivedRecord
from dispatcher.offset_tracker import OffsetTracker
from dispatcher.webhooks.in_flight import InFlightDeliveries, WaitingTasks
from schemas.records import Delivery
from tests.support.waiting import turns


class Record:
    """The fields of a consumed record."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class Desk:
    """Deliveries in flight with doubles."""

    def __init__(self, max_records: int = 10, max_bytes: int = 1000) -> None:
        self.waiting_tasks = WaitingTasks()
        self.claims = OffsetTracker()
        self.crashes: list[str] = []
        self.hands = InFlightDeliveries(max_records, max_bytes, waiting_tasks=self.waiting_tasks, on_crash=self.crashed)

    async def crashed(self, _: ReceivedRecord, reason: str) -> None:
        self.crashes.append(reason)

    def take(self, offset: int, work: Any, *, size: int = 1) -> None:
        self.claims.add(offset)
        delivery: Any = {"id": f"d{offset}", "created_ms": 100 + offset}
        known: Delivery = delivery
        self.hands.start(ReceivedRecord(Record(offset), self.claims), known, work, size=size)

    async def waits(self) -> None:
        with self.waiting_tasks:
            await asyncio.Event().wait()


async def test_a_claim_is_settled_when_the_work_is_over_and_not_before() -> None:
    desk, go = Desk(), asyncio.Event()
    desk.take(0, go.wait())
    await turns(4)
    assert desk.claims.to_commit() == 0
    assert desk.hands.oldest_ms() == 100
    go.set()
    await turns(4)
    assert desk.claims.to_commit() == 1
    assert (len(desk.hands), desk.hands.oldest_ms()) == (0, None)


async def test_what_waits_is_dropped_unsettled_and_what_is_under_way_is_finished() -> None:
    desk, go = Desk(), asyncio.Event()
    desk.take(0, desk.waits())
    desk.take(1, go.wait())
    await turns(4)
    letting_go = asyncio.create_task(desk.hands.drain(5))
    await turns(4)
    assert not letting_go.done()
    go.set()
    await letting_go
    assert len(desk.hands) == 0
    assert desk.claims.to_commit() == 0, "whoever reads the first again makes its attempt"
    assert desk.claims.uncommitted() == 1


async def test_what_takes_too_long_is_dropped_too() -> None:
    desk = Desk()
    desk.take(0, asyncio.Event().wait())
    await turns(4)
    await desk.hands.drain(0.01)
    assert (len(desk.hands), desk.claims.uncommitted()) == (0, 1)


async def test_a_crash_is_put_aside_and_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    async def crash() -> None:
        raise ZeroDivisionError("oh")

    desk.take(0, crash())
    await turns(4)
    assert desk.crashes == ["unexpected error: oh"]
    assert desk.claims.to_commit() == 1
    assert "webhook_delivery_crashed" in {getattr(record, "event", None) for record in caplog.records}


async def test_room_is_bounded_by_records_and_by_bytes() -> None:
    desk, go = Desk(max_records=2, max_bytes=100), asyncio.Event()
    assert await desk.hands.wait_for_capacity() == 2
    desk.take(0, go.wait(), size=101)
    asking = asyncio.create_task(desk.hands.wait_for_capacity())
    await turns(4)
    assert not asking.done()
    go.set()
    assert await asking == 2
    go.clear()
    desk.take(1, go.wait())
    desk.take(2, go.wait())
    asking = asyncio.create_task(desk.hands.wait_for_capacity())
    await turns(4)
    assert not asking.done()
    desk.hands.stop()
    assert await asking == 1, "a reader that stops is not left waiting"
    await desk.hands.drain(0)
