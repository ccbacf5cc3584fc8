"""One viewer of a feed: what it gets when it is slow, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from ingress.read_model.task_snapshot import from_status
from ingress.task_events import feed as feeds
from ingress.task_events.stream import Viewer
from ingress.task_events.transcript import START, Transcript
from schemas import topics
from schemas.codec import RESULT
from schemas.records import Status, Task
from tests.support import records
from tests.support.bella import chunk, row_of
from tests.support.memory_ingress import Memory, ingress_in_memory
from tests.support.results import result_of

SIZE = 10_000
WINDOW = 50_000
TASK: Task = records.task(id=records.task_id(mode="S"), mode="streaming")
ROW: Status = row_of(TASK, 0, state="processing", worker="w1", started_ms=2_000)


@pytest.fixture
async def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Memory]:
    monkeypatch.setattr(feeds, "Transcript", lambda: Transcript(window_bytes=WINDOW))
    async with ingress_in_memory(Settings(data_dir=tmp_path)) as (memory, _):
        memory.row(ROW)
        yield memory


def frame(number: int) -> bytes:
    return b"%05d" % number * (SIZE // 5)


def numbers(data: bytes) -> list[int]:
    """Read which frames there are."""
    return [int(line[6:11]) for line in data.split(b"\n") if line.startswith(b"data: ")]


async def take(following: AsyncGenerator[bytes], upto: int) -> list[int]:
    got: list[int] = []
    while not got or got[-1] < upto:
        async with asyncio.timeout(60):
            got += numbers(await anext(following))
    return got


async def test_one_that_is_far_behind_reads_from_the_log_while_the_task_runs(memory: Memory) -> None:
    events = memory.connected.task_events
    async with events.subscribe(from_status(ROW)) as feed:
        slow, quick = (Viewer(feed, START).follow(silence_s=5) for _ in range(2))
        assert await anext(slow) == await anext(quick) == feed.now
        got: list[int] = []
        for seq in range(100):
            memory.tell([chunk(TASK, seq, frame(seq))])
            got += await take(quick, seq)
        assert got == list(range(100))
        assert feed.transcript.first > 80
        assert sum(map(len, feed.transcript._frames)) <= 2 * WINDOW + SIZE
        assert await take(slow, 99) == list(range(100))
        await slow.aclose()
        await quick.aclose()
    assert feed._viewers == set()


async def test_what_the_log_has_lost_comes_from_the_outcome(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> AsyncGenerator[Any]:
        return
        yield

    monkeypatch.setattr(Memory, "read_range", nothing)
    events = memory.connected.task_events
    async with events.subscribe(from_status(ROW)) as feed:
        slow = Viewer(feed, START).follow(silence_s=0.01)
        await anext(slow)
        for seq in range(100):
            memory.tell([chunk(TASK, seq, frame(seq))])
        await asyncio.sleep(0)
        assert await anext(slow) == b": keep-alive\n"
        body = b"".join(b"data: %b\n\n" % frame(number) for number in range(100))
        result = result_of(TASK["id"] or "", mode="streaming", content_type="text/event-stream", chunks=100, body=body)
        offset = memory.arrive(topics.results(0), result["id"], RESULT.encode(result))
        memory.row({**ROW, "state": "completed", "result_offset": offset, "finished_ms": 3_000})
        assert await take(slow, 99) == list(range(100))
        await slow.aclose()


async def test_a_feed_that_breaks_sends_its_viewers_away(memory: Memory) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError

    memory.offset_at = broken  # type: ignore[assignment,method-assign]
    events = memory.connected.task_events
    async with events.subscribe(from_status(ROW)) as feed:
        told = [data async for data in Viewer(feed, START).follow(silence_s=5)]
    assert told[0] == feed.now
    assert b'"code":"internal_error"' in told[-1]


async def test_the_last_to_leave_turns_off_the_light(memory: Memory) -> None:
    events = memory.connected.task_events
    async with events.subscribe(from_status(ROW)) as one:
        async with events.subscribe(from_status(ROW)) as two:
            assert one is two
        assert memory.ingress.waiters._followers == {one.key: one}
    assert memory.ingress.waiters._followers == {}
    assert memory._watching == {}
    async with events.subscribe(from_status(ROW)) as three:
        assert three is not one
