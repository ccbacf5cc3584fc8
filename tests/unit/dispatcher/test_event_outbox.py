"""The outbox: no event is lost or reordered, and failing writes pause the intake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.clock import Deadline
from core.kafka.producer import Record
from dispatcher import event_outbox as module
from dispatcher.event_outbox import EventOutbox
from dispatcher.task_supervisor import TaskSupervisor
from schemas.kafka_record import AddressedRecord
from tests.support.dispatcher_doubles import MemoryProducer
from tests.support.waiting import eventually_async


def letter(number: int, size: int = 1) -> AddressedRecord:
    return AddressedRecord("events", number % 2, Record(b"%d" % number, b"x" * size))


@pytest.fixture
async def producer() -> MemoryProducer:
    return MemoryProducer()


@pytest.fixture
async def rooms() -> list[bool]:
    return []


@pytest.fixture
async def outbox(producer: MemoryProducer, rooms: list[bool]) -> AsyncIterator[EventOutbox]:
    box = EventOutbox(producer, on_capacity=rooms.append)
    box.start(TaskSupervisor())
    yield box
    producer.blocked, producer.hold = False, None
    await box.close(Deadline(60))


async def test_what_comes_during_a_write_goes_with_the_next(outbox: EventOutbox, producer: MemoryProducer) -> None:
    producer.hold = asyncio.Event()
    first = outbox.enqueue(letter(0))
    await eventually_async(lambda: producer.writes == 1)
    others = [outbox.enqueue(letter(number)) for number in range(1, 100)]
    producer.hold.set()
    await asyncio.gather(first, *others)
    assert producer.writes == 2
    keys = [int(record.key or b"") for _, partition, record in producer.written if partition == 0]
    assert keys == sorted(keys)
    assert len(producer.written) == 100


async def test_a_refused_write_is_repeated_until_it_is_taken(
    outbox: EventOutbox, producer: MemoryProducer, rooms: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY_S", 0.01)
    producer.blocked = True
    futures = [outbox.enqueue(letter(number)) for number in range(3)]
    await eventually_async(lambda: producer.writes >= 2)
    assert not any(future.done() for future in futures)
    assert outbox.has_capacity is False
    assert rooms[-1] is False
    producer.blocked = False
    await asyncio.gather(*futures)
    assert [record.key for _, _, record in producer.written] == [b"0", b"2", b"1"]
    await eventually_async(lambda: outbox.has_capacity)
    assert rooms[-1] is True


async def test_the_memory_is_bounded(
    outbox: EventOutbox, producer: MemoryProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 1000)
    producer.hold = asyncio.Event()
    outbox.enqueue(letter(0, size=900))
    assert outbox.has_capacity
    outbox.enqueue(letter(1, size=100))
    assert not outbox.has_capacity
    producer.hold.set()
    assert await outbox.drained(Deadline(60))
    assert outbox.has_capacity


async def test_one_write_is_bounded_too(
    outbox: EventOutbox, producer: MemoryProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 250)
    assert await outbox.write_all((letter(number, size=100) for number in range(10)), Deadline(60))
    assert producer.writes == 5


async def test_a_deadline_ends_the_wait_and_the_event_stays_enqueued(
    outbox: EventOutbox, producer: MemoryProducer
) -> None:
    producer.blocked = True
    assert not await outbox.write_all([letter(1)], Deadline(0.05))
    assert not await outbox.drained(Deadline(0.05))
    producer.blocked = False
    assert await outbox.drained(Deadline(60))
    assert len(producer.written) == 1


async def test_events_that_were_not_written_before_the_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    producer = MemoryProducer()
    producer.blocked = True
    box = EventOutbox(producer)
    box.start(TaskSupervisor())
    box.enqueue(letter(1))
    await box.close(Deadline(0.05))
    assert "1 events were not written" in caplog.text
