"""What is due is written for owned partitions, and never thrown away while nothing is owned."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.errors import Unavailable
from core.kafka.producer import Record
from core.settings.models import Settings
from schemas.codec import EVENT, STATUS
from schemas.records import Event, Status
from streams import timers as module
from streams.state_index import StateIndex
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules
from streams.timers import Timers
from tests.support.records import task, task_id
from tests.support.waiting import eventually_async


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tick at every turn of the loop, and try soon again."""
    monkeypatch.setattr(module, "TICK_S", 0)
    monkeypatch.setattr(module, "RETRY_MS", 10)


class Parts:
    """Producer and rows in memory."""

    def __init__(self, row: Status) -> None:
        self.row = row
        self.down = False
        self.written: list[Event] = []

    async def send_all(self, records: list[tuple[str, int, Record]]) -> None:
        if self.down:
            raise Unavailable
        self.written += [EVENT.decode(record.value or b"") for _, _, record in records]

    def get(self, _partition: int, key: bytes) -> bytes | None:
        return STATUS.encode(self.row) if key.decode() == self.row["id"] else None


def overdue() -> Status:
    row = tasks.submitted(
        None, task(timeout_ms=60_000), task_id=task_id(), offset=0, created_ms=1_000, now_ms=1_000, rules=TaskRules()
    ).row
    assert row is not None
    return row


def timers(parts: Any, index: StateIndex, owned: set[int] | None = None) -> Timers:
    partitions = {0} if owned is None else owned
    return Timers(Settings(), 0, producer=parts, lookup=parts, index=index, rows=parts, partitions=partitions)


async def test_nothing_due_is_lost_in_a_rebalance() -> None:
    index, parts = StateIndex(), Parts(overdue())
    owned: set[int] = set()
    running = timers(parts, index, owned)
    index.update(0, None, parts.row, now_ms=1_000)
    ticking = asyncio.create_task(running.run())
    try:
        for _ in range(50):
            await asyncio.sleep(0)  # ticks go by while nothing is owned
        assert parts.written == []
        owned.add(0)
        await eventually_async(lambda: parts.written)
    finally:
        ticking.cancel()
    assert [(found["kind"], found["id"]) for found in parts.written] == [("deadline", parts.row["id"])]


async def test_what_kafka_refuses_is_written_later() -> None:
    index, parts = StateIndex(), Parts(overdue())
    parts.down = True
    running = timers(parts, index)
    index.update(0, None, parts.row, now_ms=1_000)
    ticking = asyncio.create_task(running.run())
    try:
        await eventually_async(lambda: index.next_due_ms() not in (None, parts.row["deadline_ms"]))
        parts.down = False
        await eventually_async(lambda: parts.written)
    finally:
        ticking.cancel()


async def test_a_task_that_has_ended_gets_no_event() -> None:
    row = overdue()
    index, parts = StateIndex(), Parts({**row, "state": "completed"})
    running = timers(parts, index)
    index.update(0, None, row, now_ms=1_000)
    ticking = asyncio.create_task(running.run())
    try:
        await eventually_async(lambda: index.next_due_ms() is None)
    finally:
        ticking.cancel()
    assert parts.written == []


async def test_the_end_of_a_lease_names_the_attempt_that_it_was_for() -> None:
    held: Status = {**overdue(), "state": "processing", "attempt": 3, "worker": "pull/w", "lease_until_ms": 9_000}
    held["deadline_ms"] = 99_000_000_000_000
    index, parts = StateIndex(), Parts(held)
    running = timers(parts, index)
    index.update(0, None, held, now_ms=1_000)
    ticking = asyncio.create_task(running.run())
    try:
        await eventually_async(lambda: parts.written)
    finally:
        ticking.cancel()
    assert [(one["kind"], one["id"], one["attempt"]) for one in parts.written] == [("lease_over", held["id"], 3)]
