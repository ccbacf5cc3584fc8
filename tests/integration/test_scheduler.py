"""One scheduler process on a real broker: what it writes and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.kafka.producer import Record
from schemas import topics
from schemas.events import event
from tests.support.records import claimed, failure, finished
from tests.support.scheduler_bench import Bench, scheduler_bench
from tests.support.waiting import eventually_async


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with scheduler_bench(kafka, tmp_path) as running:
        yield running


async def test_a_task_goes_through_and_its_row_points_to_its_result(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    assert bench.probe.work[one][0]["attempt"] == 1
    await bench.probe.tell(claimed(one), finished(one))
    await eventually_async(lambda: bench.probe.row_states[one][-1:] == ["completed"])
    [result] = bench.probe.results[one]
    assert (result["state"], result["body"]) == ("completed", b'{"ok":true}')
    row = bench.probe.rows[one]
    assert row is not None
    assert row["result_offset"] == bench.probe.result_offsets[one]


async def test_a_silent_worker_loses_its_task_to_the_next_attempt(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await bench.probe.worker_says("heartbeat", "w1")
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.tell(claimed(one, worker="w1"))
    await eventually_async(lambda: len(bench.probe.work[one]) == 2, within_s=15)
    assert bench.probe.work[one][1]["attempt"] == 2
    assert bench.probe.work[one][1]["data"] == bench.probe.work[one][0]["data"]
    await bench.probe.tell(finished(one, attempt=1, worker="w1"), finished(one, attempt=2, worker="w2"))
    await eventually_async(lambda: bench.probe.results[one])
    assert [result["attempt"] for result in bench.probe.results[one]] == [2]


async def test_a_worker_that_beats_keeps_its_task(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.tell(claimed(one, worker="w1"))
    give_up = time.monotonic() + 4
    while time.monotonic() < give_up:
        await bench.probe.worker_says("heartbeat", "w1", upstreams_up=1)
        await asyncio.sleep(0.3)
    assert len(bench.probe.work[one]) == 1
    assert bench.probe.pulses[-1]["workers"][0]["upstreams_up"] == 1
    await bench.probe.worker_says("goodbye", "w1")
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)


async def test_three_lost_workers_make_a_dead_letter(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    for attempt in (1, 2, 3):
        await eventually_async(lambda: len(bench.probe.work[one]) == attempt, within_s=15)  # noqa: B023
        await bench.probe.tell(claimed(one, attempt=attempt, worker=f"w{attempt}"))
    await eventually_async(lambda: bench.probe.results[one], within_s=15)
    assert bench.probe.results[one][0]["error_code"] == "worker_lost"
    await eventually_async(lambda: bench.probe.letters)
    headers = dict(bench.probe.letters[0].headers)
    assert (headers["x-reason"], headers["x-attempt"]) == (b"worker_lost", b"3")
    assert bench.probe.letters[0].key == one.encode()


async def test_a_retriable_failure_comes_back_with_its_body(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.tell(finished(one, result=failure()))
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)
    assert bench.probe.work[one][1]["data"] == bench.probe.work[one][0]["data"]


async def test_what_a_stopping_worker_releases_comes_back_at_once(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.tell(event("released", at_ms=1, task_id=one, attempt=1, worker="w1"))
    await eventually_async(lambda: len(bench.probe.work[one]) == 2, within_s=5)


async def test_a_deadline_ends_a_task_that_nobody_runs(bench: Bench) -> None:
    [one] = await bench.probe.submit(timeout_ms=700)
    await eventually_async(lambda: bench.probe.results[one], within_s=10)
    [result] = bench.probe.results[one]
    assert (result["error_code"], result["status_code"]) == ("timeout", 408)
    await eventually_async(lambda: one in bench.probe.cancels)


async def test_a_task_that_nobody_begins_ends_at_its_start_timeout(bench: Bench) -> None:
    [idle] = await bench.probe.submit(start_timeout_ms=700)
    [begun] = await bench.probe.submit(start_timeout_ms=700, run_timeout_ms=9_000)
    await eventually_async(lambda: bench.probe.work[begun])
    assert bench.probe.work[begun][0]["run_timeout_ms"] == 9_000
    await bench.probe.tell(claimed(begun))
    await eventually_async(lambda: bench.probe.results[idle], within_s=10)
    [result] = bench.probe.results[idle]
    assert (result["error_code"], result["status_code"]) == ("start_timeout", 408)
    await bench.probe.tell(finished(begun))
    await eventually_async(lambda: bench.probe.results[begun])
    assert bench.probe.results[begun][0]["state"] == "completed"


async def test_each_task_has_its_own_retention(bench: Bench) -> None:
    short, long = *(await bench.probe.submit(retention_ms=300)), *(await bench.probe.submit())
    await eventually_async(lambda: bench.probe.work[short] and bench.probe.work[long])
    await bench.probe.finish_pending()
    await eventually_async(lambda: bench.probe.row_states[short][-1:] == ["expired"], within_s=10)
    assert bench.probe.row_states[long][-1:] == ["completed"]


async def test_cancel_ends_a_task_and_nothing_follows(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.tell(
        event("cancel", at_ms=1, task_id=one, owner="somebody else"),
        event("cancel", at_ms=1, task_id=one, owner="key-1"),
    )
    await eventually_async(lambda: bench.probe.results[one])
    await bench.probe.tell(finished(one))
    [marker] = await bench.probe.submit(timeout_ms=1)
    await eventually_async(lambda: bench.probe.results[marker])
    assert [result["state"] for result in bench.probe.results[one]] == ["cancelled"]
    assert one in bench.probe.cancels


async def test_poison_is_buried_and_the_neighbours_go_on(bench: Bench) -> None:
    tasks, events = (bench.settings.topic(name(0)) for name in (topics.tasks, topics.events))
    await bench.probe.producer.send_all(
        [
            (tasks, 0, Record(b"k", b"garbage", [("mine", b"1")])),
            (tasks, 0, Record(b"k", b"\0\0\0\0\1")),
            (tasks, 0, Record(b"k", None)),
            (events, 0, Record(b"k", b"\0\0\0\0\x63xx")),
        ]
    )
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await eventually_async(lambda: len(bench.probe.letters) == 4)
    found = {(dict(letter.headers)["x-topic"], letter.value) for letter in bench.probe.letters}
    assert (tasks.encode(), b"garbage") in found
    assert (events.encode(), b"\0\0\0\0\x63xx") in found
    assert all(dict(letter.headers)["x-reason"] for letter in bench.probe.letters)
