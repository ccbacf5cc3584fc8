"""How many deliveries wait in Kafka, and the age of the oldest."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.deliveries import new_delivery
from core.errors import Unavailable
from dispatcher import metrics
from dispatcher.webhooks.lag import MAX_MARKS, LagTracker, LagWindow, export_lag
from schemas.codec import DELIVERY

A, B = TopicPartition("retry", 0), TopicPartition("retry", 1)


class Log:
    """Partitions as lists of creation times; None is an invalid record."""

    def __init__(self) -> None:
        self.of: dict[TopicPartition, list[int | None]] = {}
        self.first = 0
        self.read = 0
        self.away = False

    async def bounds(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Respond as the broker does."""
        if self.away:
            raise Unavailable
        return {tp: (self.first, len(self.of.get(tp, []))) for tp in tps}

    async def read_range(self, tp: TopicPartition, offset: int, end: int) -> AsyncIterator[Any]:
        """Yield records."""
        for at in range(offset, end):
            self.read += 1
            created_ms = self.of[tp][at]
            value = b"stray" if created_ms is None else waiting(created_ms)
            yield SimpleNamespace(offset=at, value=value)


def waiting(created_ms: int) -> bytes:
    made = new_delivery(
        "TASK-1-0-C-261118110640-0001-000001",
        "completed",
        name="completed",
        url="http://there/x",
        owner=None,
        level=0,
        result_offset=1,
        payload=None,
        now_ms=created_ms,
    )
    return DELIVERY.encode(made)


def backlog(log: Log, heads: dict[TopicPartition, int]) -> LagTracker:
    return LagTracker(log, lambda: heads)  # type: ignore[arg-type]  # what it uses of a LogReader


async def test_what_stands_behind_a_waiting_head_is_counted_with_its_age() -> None:
    log, heads = Log(), {A: 1, B: 0}
    log.of = {A: [5, 900, None, 300, 800], B: [700]}
    found = backlog(log, heads)
    assert (len(found), found.oldest_ms()) == (0, None), "nothing is known before the first look"
    await found.refresh()
    assert (len(found), found.oldest_ms()) == (5, 300), "an old one that has failed again stands behind younger ones"
    heads[A] = 4
    assert (len(found), found.oldest_ms()) == (2, 700)
    log.of[A] += [100, 950]
    read = log.read
    await found.refresh()
    assert (len(found), found.oldest_ms()) == (4, 100)
    assert log.read == read + 2, "nothing is read twice"
    heads[A] = 7
    assert (len(found), found.oldest_ms()) == (1, 700)
    del heads[B]
    assert (len(found), found.oldest_ms()) == (0, None), "another sender counts what has gone to it"


async def test_a_partition_that_is_read_again_is_counted_again() -> None:
    log, heads = Log(), {A: 3}
    log.of = {A: [10, 20, 30, 40]}
    found = backlog(log, heads)
    await found.refresh()
    assert (len(found), found.oldest_ms()) == (1, 40)
    heads[A] = 1
    await found.refresh()
    assert (len(found), found.oldest_ms()) == (3, 20)


async def test_what_kafka_has_dropped_does_not_count_and_a_broker_that_is_away_changes_nothing() -> None:
    log, heads = Log(), {A: 0}
    log.of = {A: [10, 20, 30, 40]}
    found = backlog(log, heads)
    await found.refresh()
    log.away = True
    await found.refresh()
    assert (len(found), found.oldest_ms()) == (4, 10)
    log.away, log.first = False, 2
    await found.refresh()
    assert found._windows[A].count == 2
    assert found._windows[A].oldest_ms == 30


def test_the_oldest_is_never_missed_and_the_memory_is_bounded() -> None:
    rng = random.Random(4)
    window, created = LagWindow(0), sorted(rng.randrange(10**9) for _ in range(20 * MAX_MARKS))
    for offset, created_ms in enumerate(created):
        window.add(offset, created_ms)
        assert len(window._marks) <= MAX_MARKS
    for head in range(0, len(created), 37):
        window.advance(head)
        oldest = window.oldest_ms
        assert oldest is not None
        assert oldest <= created[head]
    window.advance(len(created))
    assert window.oldest_ms is None


async def test_the_gauges_tell_of_what_waits_in_kafka() -> None:
    log = Log()
    log.of = {A: [epoch_ms() - 3_600_000, epoch_ms()]}
    found = backlog(log, {A: 0})
    await found.refresh()
    export_lag([], found)
    assert metrics.WEBHOOK_PENDING._value.get() == 2
    assert 3_600 <= metrics.WEBHOOK_OLDEST._value.get() < 4_000
    export_lag([], backlog(Log(), {}))
    assert metrics.WEBHOOK_PENDING._value.get() == metrics.WEBHOOK_OLDEST._value.get() == 0
