"""Seen attempts: which events count, and that one read serves every earlier call."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable

import pytest

from core.errors import Unavailable
from core.kafka.log_reader import LogRecord
from core.kafka.producer import Record
from core.settings.models import Settings
from dispatcher.inference.concurrency import Draining
from dispatcher.inference.seen_attempts import (
    LOOKBACK_MS,
    MARGIN_MS,
    LevelIndex,
    Positions,
    SeenAttempts,
    attempt_of,
    key_of,
)
from schemas.codec import EVENT
from schemas.events import event, task_event, worker_events
from schemas.headers import headers
from schemas.records import EventKind, Outcome
from tests.support.clocks import MillisecondClock
from tests.support.dispatcher_doubles import work
from tests.support.records import outcome
from tests.support.waiting import eventually_async

SETTINGS = Settings()
ONE = work(attempt=3)


def found(record: Record) -> LogRecord:
    return LogRecord("events", 0, 0, 1, record.key, record.value, record.headers)


def said(kind: EventKind, *, worker: str = "host-1-abcdef", result: Outcome | None = None) -> LogRecord:
    happened = event(kind, at_ms=7, task_id=ONE["id"], attempt=3, worker=worker, outcome=result)
    return found(task_event("", ONE, happened, partition=0).record)


@pytest.mark.parametrize("kind", ["claimed", "finished", "released", "progress"])
def test_what_a_dispatcher_says_of_its_work_counts(kind: EventKind) -> None:
    assert attempt_of(said(kind)) == key_of((ONE["id"], 3))


def test_an_answer_may_hold_any_words() -> None:
    assert attempt_of(said("finished", result=outcome(body=b"pull/me " + ONE["id"].encode() + b" pull/")))


@pytest.mark.parametrize("kind", ["heartbeat", "goodbye"])
def test_what_a_worker_says_of_itself_does_not(kind: EventKind) -> None:
    for one in worker_events("", kind, partitions=2, worker="w", at_ms=1, running=0, upstreams_up=1):
        assert attempt_of(found(one.record)) is None


def test_what_an_ingress_says_for_a_pull_worker_does_not() -> None:
    assert attempt_of(said("claimed", worker="pull/one")) is None


@pytest.mark.parametrize("kind", ["cancel", "event.retry_due", "event.worker_lost", "event.deadline"])
def test_what_others_say_does_not(kind: str) -> None:
    told = event("retry_due", at_ms=7, task_id=ONE["id"], attempt=3)
    described = headers(kind=kind, ce_id=f"{ONE['id']}/{kind}/3/7", at_ms=7, attempt=3)
    assert attempt_of(LogRecord("events", 0, 0, 7, ONE["id"].encode(), EVENT.encode(told), described)) is None


@pytest.mark.parametrize("key", [None, b"", b"other"])
def test_strange_records_do_no_harm(key: bytes | None) -> None:
    for described in ([], [("ce_type", None)], [("ce_type", b"io.headrace.claimed")]):
        assert attempt_of(LogRecord("events", 0, 0, 7, key, None, described)) is None


class Topic:
    """Events that a test writes; `gate` delays a read, `away` is a broker that is unavailable."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.asked: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def read(self, since_ms: int, positions: Positions, add: Callable[[bytes], None]) -> None:
        self.asked.append(since_ms)
        end = len(self.events)
        await self.gate.wait()
        if self.away:
            raise Unavailable
        for one in self.events[positions.get(0, 0) : end]:
            add(one)
        positions[0] = end


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
async def hearing(topic: Topic) -> AsyncIterator[LevelIndex]:
    made = LevelIndex(topic.read)
    yield made
    await made.close()


async def test_those_who_ask_while_it_is_read_share_the_next_reading(topic: Topic, hearing: LevelIndex) -> None:
    topic.gate.clear()
    first = asyncio.create_task(hearing.ensure_loaded(1_000, after=time.monotonic()))
    await eventually_async(lambda: topic.asked)
    topic.events.append(b"late/1")
    rest = [asyncio.create_task(hearing.ensure_loaded(900 + n, after=time.monotonic())) for n in range(300)]
    await asyncio.sleep(0)
    rest[0].cancel()
    topic.gate.set()
    await first
    await asyncio.gather(*rest[1:])
    assert len(topic.asked) == 2
    assert topic.asked[1] <= 901
    assert b"late/1" in hearing.keys


async def test_what_is_known_is_not_read_again(topic: Topic, hearing: LevelIndex) -> None:
    assigned_at = time.monotonic()
    await hearing.ensure_loaded(1_000, after=assigned_at)
    await hearing.ensure_loaded(2_000, after=assigned_at)
    assert topic.asked == [1_000]
    await hearing.ensure_loaded(500, after=assigned_at)
    assert topic.asked == [1_000, 500], "an older record needs an older reading"
    topic.events.append(b"new/1")
    await hearing.ensure_loaded(1_000, after=time.monotonic())
    assert topic.asked == [1_000, 500, 500], "a later assignment needs what was said until then"
    assert b"new/1" in hearing.keys


async def test_it_waits_for_kafka(topic: Topic, hearing: LevelIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.inference.seen_attempts.RETRY_DELAY_S", 0.01)
    topic.away, topic.events = True, [b"a/1"]
    asked = asyncio.create_task(hearing.ensure_loaded(1, after=time.monotonic()))
    await eventually_async(lambda: len(topic.asked) >= 2, what="a second try")
    assert not asked.done()
    topic.away = False
    await asked
    assert b"a/1" in hearing.keys


async def test_the_end_of_the_process_ends_the_wait(topic: Topic, hearing: LevelIndex) -> None:
    topic.gate.clear()
    asked = [asyncio.create_task(hearing.ensure_loaded(1, after=time.monotonic())) for _ in range(3)]
    await eventually_async(lambda: topic.asked)
    await hearing.close()
    for one in asked:
        with pytest.raises(Draining):
            await one
    with pytest.raises(Draining):
        await hearing.ensure_loaded(1, after=-math.inf)


async def test_it_expires_and_is_read_again(topic: Topic) -> None:
    hearing = LevelIndex(topic.read, ttl_s=0.2)
    topic.events = [b"a/1"]
    assigned_at = time.monotonic()
    await hearing.ensure_loaded(1, after=assigned_at)
    await eventually_async(lambda: len(hearing.keys) == 0, what="the end of its time")
    before = len(topic.asked)
    await hearing.ensure_loaded(1, after=assigned_at)
    assert len(topic.asked) > before
    await hearing.close()


async def test_only_what_others_may_have_taken_is_waited_for(topic: Topic, hearing: LevelIndex) -> None:
    clock = MillisecondClock(1_000_000_000)
    spoken = SeenAttempts([hearing], clock=clock)
    now_ms = clock()
    assigned_at = time.monotonic()
    await spoken.ensure_loaded(0, oldest_ms=now_ms + MARGIN_MS + 1, assigned_ms=now_ms, assigned_at=assigned_at)
    assert topic.asked == [], "written after the partition was ours"
    topic.events = [key_of(("TASK-1", 2))]
    await spoken.ensure_loaded(0, oldest_ms=now_ms, assigned_ms=now_ms, assigned_at=assigned_at)
    await spoken.ensure_loaded(0, oldest_ms=-1, assigned_ms=now_ms, assigned_at=assigned_at)
    assert topic.asked == [now_ms - MARGIN_MS, now_ms - LOOKBACK_MS]
    assert ("TASK-1", 2) in spoken
    assert ("TASK-1", 1) not in spoken
