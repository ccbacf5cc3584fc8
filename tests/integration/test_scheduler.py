"""One scheduler process on a real broker: what it writes, and that nothing is lost or doubled when it dies."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.kafka.producer import Record
from core.settings import Settings
from schemas import topics
from schemas.records import event
from tests.support.lane import LaneProbe, lane_probe
from tests.support.records import claimed, failure, finished
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import eventually_async

PREFIXES = iter(range(10_000))


class Bench:
    """A probe and a scheduler process on the same topics."""

    def __init__(self, probe: LaneProbe, role: Role, settings: Settings, env: dict[str, str], folder: Path) -> None:
        self.probe, self.role, self.settings, self.env, self.folder = probe, role, settings, env, folder


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    prefix = f"sched{next(PREFIXES)}-{time.time_ns()}."
    settings, env = settings_for(
        kafka, tmp_path, prefix, streams__lease_s=2, streams__retry_base_s=0.2, streams__session_timeout_s=6
    )
    async with lane_probe(settings) as probe:
        with running("streams", "--level", "online", env=env, log=tmp_path / "streams.log") as role:
            await eventually_async(lambda: probe.pulses, within_s=40, what="the first pulse")
            yield Bench(probe, role, settings, env, tmp_path)


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


async def test_kill_9_in_the_middle_loses_nothing_and_doubles_nothing(bench: Bench) -> None:
    dice = random.Random(3)
    accepted: list[str] = []
    for _ in range(3):
        accepted += await bench.probe.submit(300)
        give_up = time.monotonic() + dice.uniform(0.05, 0.4)
        while time.monotonic() < give_up:
            await bench.probe.finish_pending()
            await asyncio.sleep(0)
        bench.role.kill()
        accepted += await bench.probe.submit(60)
        bench.role.start()

    async def all_done() -> None:
        while any(not bench.probe.results[one] for one in accepted):
            await bench.probe.finish_pending()
            await asyncio.sleep(0.05)

    await asyncio.wait_for(all_done(), 60)
    await eventually_async(lambda: all(bench.probe.row_states[one][-1] == "completed" for one in accepted))
    assert {len(bench.probe.results[one]) for one in accepted} == {1}
    for one in accepted:
        row = bench.probe.rows[one]
        assert row is not None
        assert row["result_offset"] == bench.probe.result_offsets[one]


async def test_what_workers_did_in_the_seam_of_a_crash_counts(bench: Bench) -> None:
    """A scheduler dies after its work records and before its rows: the work is done when the task is folded again."""
    probe = bench.probe
    bench.role.kill()
    ids = await probe.submit(300)
    half = len(ids) // 2
    await probe.tell(*(claimed(one) for one in ids))
    await probe.tell(*(finished(one) for one in ids[:half]))
    bench.role.start()
    beating = asyncio.create_task(beat(probe, "w1"))
    try:
        await eventually_async(lambda: all(probe.results[one] for one in ids[:half]), within_s=40)
        await eventually_async(lambda: all(probe.row_states[one][-1:] == ["processing"] for one in ids[half:]))
        await probe.tell(*(finished(one) for one in ids[half:]))
        await eventually_async(lambda: all(probe.results[one] for one in ids))
    finally:
        beating.cancel()
    assert {len(probe.results[one]) for one in ids} == {1}
    assert not any(probe.work[one] for one in ids)  # whoever spoke of an attempt has it


async def beat(probe: LaneProbe, worker: str) -> None:
    """Show life until cancelled."""
    while True:
        await probe.worker_says("heartbeat", worker)
        await asyncio.sleep(0.3)


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


async def test_a_retry_that_waits_outlives_the_scheduler(bench: Bench) -> None:
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    await bench.probe.tell(finished(one, result=failure(retry_after_ms=1_500)))
    await eventually_async(lambda: (bench.probe.rows[one] or {}).get("not_before_ms"))
    bench.role.kill()
    bench.role.start()
    await eventually_async(lambda: len(bench.probe.work[one]) == 2, within_s=40)
    assert bench.probe.work[one][1]["attempt"] == 2
    assert not bench.probe.results[one]


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


async def test_local_state_may_be_deleted(bench: Bench) -> None:
    waiting = await bench.probe.submit(20)
    await eventually_async(lambda: all(one in bench.probe.rows for one in waiting))
    before = dict(bench.probe.rows)
    bench.role.kill()
    shutil.rmtree(bench.folder / "streams-online")
    bench.role.start()
    await bench.probe.tell(*(event("cancel", at_ms=1, task_id=one) for one in waiting))
    await eventually_async(lambda: all(bench.probe.results[one] for one in waiting), within_s=40)
    for one in waiting:
        row, old = bench.probe.rows[one], before[one]
        assert row is not None
        assert old is not None
        kept = ("id", "queue", "owner", "created_ms", "deadline_ms", "source_offset", "attempt")
        assert [row[name] for name in kept] == [old[name] for name in kept]  # type: ignore[literal-required]


async def test_local_state_may_be_deleted_while_it_is_used(bench: Bench) -> None:
    before = await bench.probe.submit(20)
    await eventually_async(lambda: all(one in bench.probe.rows for one in before))
    shutil.rmtree(bench.folder / "streams-online")
    after = await bench.probe.submit(20)
    await bench.probe.tell(*(event("cancel", at_ms=1, task_id=one) for one in before[:10]))
    # Open files outlive their names, so the process may go on; what counts is that the next one finds everything.
    bench.role.kill()
    bench.role.start()
    await bench.probe.tell(*(event("cancel", at_ms=1, task_id=one) for one in (*before[10:], *after)))
    every = (*before, *after)
    await eventually_async(lambda: all(bench.probe.results[one] for one in every), within_s=40)
    assert {len(bench.probe.results[one]) for one in every} == {1}
    await eventually_async(lambda: {bench.probe.row_states[one][-1] for one in every} == {"cancelled"})


async def test_a_frozen_scheduler_ends_itself_and_writes_no_second_outcome(bench: Bench) -> None:
    waiting = await bench.probe.submit(40)
    await eventually_async(lambda: all(bench.probe.work[one] for one in waiting))
    bench.role.send(signal.SIGSTOP)
    log = bench.folder / "second.log"
    with running("streams", "--level", "online", env=bench.env, log=log):
        await bench.probe.tell(*(finished(one) for one in waiting))
        await eventually_async(lambda: all(bench.probe.results[one] for one in waiting), within_s=40)
        bench.role.send(signal.SIGCONT)
        assert bench.role.process is not None
        await asyncio.to_thread(bench.role.process.wait, 20)
        assert "slept for" in bench.role.log
        [marker] = await bench.probe.submit()
        await eventually_async(lambda: bench.probe.work[marker])
    assert {len(bench.probe.results[one]) for one in waiting} == {1}


async def test_sigterm_leaves_at_once_with_everything_committed(bench: Bench) -> None:
    accepted = await bench.probe.submit(50)
    await eventually_async(lambda: all(bench.probe.work[one] for one in accepted))
    assert await asyncio.to_thread(bench.role.stop) == 0
    bench.role.start()
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one], within_s=30)
    assert all(len(bench.probe.work[other]) == 1 for other in accepted)
