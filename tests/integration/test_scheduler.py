"""One scheduler process on a real broker: what it writes and when. Each test has tasks and workers of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.kafka.producer import Record
from schemas import topics
from schemas.events import event
from tests.support.records import claimed, failure, finished
from tests.support.scheduler_bench import Bench, scheduler_bench
from tests.support.waiting import eventually_async

LEASE_S = 2
TRIES = 10


@pytest.fixture(scope="module")
async def bench(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with scheduler_bench(kafka, tmp_path_factory.mktemp("scheduler"), streams__lease_s=LEASE_S) as running:
        yield running


async def test_a_task_goes_through_and_its_row_points_to_its_result(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    assert bench.probe.work[one][0]["attempt"] == 1
    await bench.probe.send_events(claimed(one), finished(one))
    await eventually_async(lambda: bench.probe.row_states[one][-1:] == ["completed"])
    [result] = bench.probe.results[one]
    assert (result["state"], result["body"]) == ("completed", b'{"ok":true}')
    row = bench.probe.rows[one]
    assert row is not None
    assert row["result_offset"] == bench.probe.result_offsets[one]


async def test_a_silent_worker_loses_its_task_to_the_next_attempt(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await bench.probe.send_worker_event("heartbeat", "silent")
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.send_events(claimed(one, worker="silent"))
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)
    assert bench.probe.work[one][1]["attempt"] == 2
    assert bench.probe.work[one][1]["data"] == bench.probe.work[one][0]["data"]
    await bench.probe.send_events(finished(one, attempt=1, worker="silent"), finished(one, attempt=2, worker="another"))
    await eventually_async(lambda: bench.probe.results[one])
    assert [result["attempt"] for result in bench.probe.results[one]] == [2]


async def test_a_worker_that_sends_heartbeats_keeps_its_task(bench: Bench) -> None:
    for number in range(TRIES):
        worker = f"alive-{number}"
        [one] = await bench.probe.submit()
        await eventually_async(lambda: bench.probe.work[one])  # noqa: B023
        if await works(bench, one, worker, for_s=2 * LEASE_S):
            break
    else:
        pytest.fail(f"this process stood still in each of {TRIES} tries")
    assert len(bench.probe.work[one]) == 1
    found = [known for heartbeat in bench.probe.heartbeats for known in heartbeat["workers"] if known["name"] == worker]
    assert found[-1]["upstreams_up"] == 1
    await bench.probe.send_worker_event("goodbye", worker)
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)


async def works(bench: Bench, task_id: str, worker: str, *, for_s: float) -> bool:
    """Claim a task and send heartbeats for a while; False when this process was too slow for the lease."""
    began = last = time.monotonic()
    await bench.probe.send_events(claimed(task_id, worker=worker))
    while last - began < for_s:
        await bench.probe.send_worker_event("heartbeat", worker, upstreams_up=1)
        before, last = last, time.monotonic()
        if last - before > LEASE_S / 2:
            return False
        await asyncio.sleep(0.2)
    return True


async def test_three_lost_workers_make_a_dead_letter(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    for attempt in (1, 2, 3):
        await eventually_async(lambda: len(bench.probe.work[one]) == attempt)  # noqa: B023
        await bench.probe.send_events(claimed(one, attempt=attempt, worker=f"lost-{attempt}"))
    await eventually_async(lambda: bench.probe.results[one])
    assert bench.probe.results[one][0]["error_code"] == "worker_lost"
    [letter] = await dead_letters(bench, one.encode(), 1)
    headers = dict(letter.headers)
    assert (headers["x-reason"], headers["x-attempt"]) == (b"worker_lost", b"3")


async def dead_letters(bench: Bench, key: bytes, count: int) -> list[Any]:
    """Wait for so many dead letters of a key, and return all there are."""

    def found() -> list[Any]:
        return [letter for letter in bench.probe.dead_letters if letter.key == key]

    await eventually_async(lambda: len(found()) >= count, what=f"{count} dead letters")
    return found()


async def test_a_retriable_failure_comes_back_with_its_body(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.send_events(finished(one, result=failure()))
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)
    assert bench.probe.work[one][1]["data"] == bench.probe.work[one][0]["data"]


async def test_what_a_stopping_worker_releases_comes_back_at_once(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.send_events(event("released", at_ms=1, task_id=one, attempt=1, worker="w1"))
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)


async def test_a_deadline_expires_a_task_without_a_worker(bench: Bench) -> None:
    [one] = await bench.probe.submit(timeout_ms=700)
    await eventually_async(lambda: bench.probe.results[one])
    [result] = bench.probe.results[one]
    assert (result["error_code"], result["status_code"]) == ("timeout", 408)
    await eventually_async(lambda: one in bench.probe.cancels)


async def test_a_task_that_never_starts_ends_at_its_start_timeout(bench: Bench) -> None:
    for number in range(TRIES):
        start_s = 0.7 * 2**number
        began = time.monotonic()
        [begun] = await bench.probe.submit(start_timeout_ms=int(start_s * 1000), run_timeout_ms=600_000)
        await eventually_async(lambda: bench.probe.work[begun])  # noqa: B023
        await bench.probe.send_events(claimed(begun, worker="prompt"))
        if time.monotonic() - began < start_s / 2:
            break  # else this machine is too slow just now: the claim may have come too late
    [idle] = await bench.probe.submit(start_timeout_ms=int(start_s * 1000))
    assert bench.probe.work[begun][0]["run_timeout_ms"] == 600_000
    await eventually_async(lambda: bench.probe.results[idle])
    [result] = bench.probe.results[idle]
    assert (result["error_code"], result["status_code"]) == ("start_timeout", 408)
    assert not bench.probe.results[begun]
    await bench.probe.send_events(finished(begun, worker="prompt"))
    await eventually_async(lambda: bench.probe.results[begun])
    assert bench.probe.results[begun][0]["state"] == "completed"


async def test_each_task_has_its_own_retention(bench: Bench) -> None:
    short, long = *(await bench.probe.submit(retention_ms=300)), *(await bench.probe.submit())
    await eventually_async(lambda: bench.probe.work[short] and bench.probe.work[long])
    await bench.probe.send_events(finished(short), finished(long))
    await eventually_async(lambda: "expired" in bench.probe.row_states[short])
    assert bench.probe.row_states[long][-1:] == ["completed"]


async def test_cancel_ends_a_task_and_nothing_follows(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.send_events(
        event("cancel", at_ms=1, task_id=one, owner="somebody else"),
        event("cancel", at_ms=1, task_id=one, owner="key-1"),
    )
    await eventually_async(lambda: bench.probe.results[one])
    await bench.probe.send_events(finished(one))
    [marker] = await bench.probe.submit(timeout_ms=1)
    await eventually_async(lambda: bench.probe.results[marker])
    assert [result["state"] for result in bench.probe.results[one]] == ["cancelled"]
    assert one in bench.probe.cancels


async def test_undecodable_records_become_dead_letters_and_their_neighbours_are_processed(bench: Bench) -> None:
    tasks, events = (bench.settings.topic(name(0)) for name in (topics.tasks, topics.events))
    await bench.probe.producer.send_all(
        [
            (tasks, 0, Record(b"broken", b"garbage", [("mine", b"1")])),
            (tasks, 0, Record(b"broken", b"\0\0\0\0\1")),
            (tasks, 0, Record(b"broken", None)),
            (events, 0, Record(b"broken", b"\0\0\0\0\x63xx")),
        ]
    )
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    letters = await dead_letters(bench, b"broken", 4)
    assert len(letters) == 4
    found = {(dict(letter.headers)["x-topic"], letter.value) for letter in letters}
    assert (tasks.encode(), b"garbage") in found
    assert (events.encode(), b"\0\0\0\0\x63xx") in found
    assert all(dict(letter.headers)["x-reason"] for letter in letters)
