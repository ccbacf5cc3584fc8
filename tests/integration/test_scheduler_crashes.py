"""A scheduler that is killed, frozen or robbed of its local state: nothing is lost and nothing doubled."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.events import event
from tests.support.records import claimed, failure, finished
from tests.support.roles import running
from tests.support.scheduler_bench import Bench, scheduler_bench
from tests.support.waiting import eventually_async

SETTINGS = {"streams__lease_s": 60, "streams__session_timeout_s": 6}


@pytest.fixture(scope="module")
async def shared(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with scheduler_bench(kafka, tmp_path_factory.mktemp("crashes"), **SETTINGS) as running:
        yield running


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """The scheduler of this module: every test ends it, and starts it again."""
    assert shared.role.process is not None
    if shared.role.process.poll() is not None:
        shared.role.start()
    return shared


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

    await asyncio.wait_for(all_done(), 120)
    await eventually_async(lambda: all(bench.probe.row_states[one][-1:] == ["completed"] for one in accepted))
    assert {len(bench.probe.results[one]) for one in accepted} == {1}
    await eventually_async(lambda: all(bench.probe.usage[one] for one in accepted), what="what all of them used")
    assert {len(bench.probe.usage[one]) for one in accepted} == {1}
    for one in accepted:
        row = bench.probe.rows[one]
        assert row is not None
        assert row["result_offset"] == bench.probe.result_offsets[one]


async def test_what_workers_did_in_the_seam_of_a_crash_counts(bench: Bench) -> None:
    """A scheduler crashes between its work records and its state records: the task is read again after its work."""
    probe = bench.probe
    bench.role.kill()
    ids = await probe.submit(300)
    half = len(ids) // 2
    await probe.send_events(*(claimed(one) for one in ids))
    await probe.send_events(*(finished(one) for one in ids[:half]))
    bench.role.start()
    await eventually_async(lambda: all(probe.results[one] for one in ids[:half]))
    await eventually_async(lambda: all(probe.row_states[one][-1:] == ["processing"] for one in ids[half:]))
    await probe.send_events(*(finished(one) for one in ids[half:]))
    await eventually_async(lambda: all(probe.results[one] for one in ids))
    assert {len(probe.results[one]) for one in ids} == {1}
    assert not any(probe.work[one] for one in ids)  # a worker event proves that the attempt was delivered


async def test_a_retry_that_waits_outlives_the_scheduler(bench: Bench) -> None:
    for number in range(5):
        [one] = await bench.probe.submit()
        await eventually_async(lambda: bench.probe.work[one])  # noqa: B023
        due_s = time.monotonic() + 1.5 * 2**number
        await bench.probe.send_events(finished(one, result=failure(retry_after_ms=1_500 * 2**number)))
        rows, work = bench.probe.rows, bench.probe.work[one]
        await eventually_async(lambda: (rows.get(one) or {}).get("not_before_ms") or work[1:])  # noqa: B023
        bench.role.kill()
        died_s = time.monotonic()
        bench.role.start()
        if died_s < due_s:
            break  # else the machine was too slow, and the retry was due already
    else:
        pytest.fail("every retry came before the scheduler was killed")
    await eventually_async(lambda: len(bench.probe.work[one]) == 2)
    assert bench.probe.work[one][1]["attempt"] == 2
    assert not bench.probe.results[one]


def remove(folder: Path) -> None:
    """Remove a folder in which another process may be writing."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


async def test_local_state_may_be_deleted(bench: Bench) -> None:
    waiting = await bench.probe.submit(20)
    await eventually_async(lambda: all(one in bench.probe.rows for one in waiting))
    before = dict(bench.probe.rows)
    bench.role.kill()
    remove(bench.folder / "streams-online")
    bench.role.start()
    await bench.probe.send_events(*(event("cancel", at_ms=1, task_id=one) for one in waiting))
    await eventually_async(lambda: all(bench.probe.results[one] for one in waiting))
    for one in waiting:
        row, old = bench.probe.rows[one], before[one]
        assert row is not None
        assert old is not None
        kept = ("id", "queue", "owner", "created_ms", "deadline_ms", "source_offset", "attempt")
        assert [row[name] for name in kept] == [old[name] for name in kept]  # type: ignore[literal-required]


async def test_local_state_may_be_deleted_while_it_is_used(bench: Bench) -> None:
    before = await bench.probe.submit(20)
    await eventually_async(lambda: all(one in bench.probe.rows for one in before))
    remove(bench.folder / "streams-online")
    after = await bench.probe.submit(20)
    await bench.probe.send_events(*(event("cancel", at_ms=1, task_id=one) for one in before[:10]))
    # Open files outlive their names, so the process may go on; what counts is that the next one finds everything.
    bench.role.kill()
    bench.role.start()
    await bench.probe.send_events(*(event("cancel", at_ms=1, task_id=one) for one in (*before[10:], *after)))
    every = (*before, *after)
    await eventually_async(lambda: all(bench.probe.results[one] for one in every))
    assert {len(bench.probe.results[one]) for one in every} == {1}
    await eventually_async(lambda: all(bench.probe.row_states[one][-1:] == ["cancelled"] for one in every))


async def test_a_frozen_scheduler_ends_itself_and_writes_no_second_outcome(kafka: str, tmp_path: Path) -> None:
    async with scheduler_bench(kafka, tmp_path, **SETTINGS) as bench:
        waiting = await bench.probe.submit(40)
        await eventually_async(lambda: all(bench.probe.work[one] for one in waiting))
        bench.role.kept = False
        bench.role.send(signal.SIGSTOP)
        log = bench.folder / "second.log"
        with running("streams", "--level", "online", env=bench.env, log=log):
            await bench.probe.send_events(*(finished(one) for one in waiting))
            await eventually_async(lambda: all(bench.probe.results[one] for one in waiting))
            bench.role.send(signal.SIGCONT)
            assert bench.role.process is not None
            await asyncio.to_thread(bench.role.process.wait, 60)
            assert "was suspended for" in bench.role.log
            [marker] = await bench.probe.submit()
            await eventually_async(lambda: bench.probe.work[marker])
            await eventually_async(lambda: all(bench.probe.usage[one] for one in waiting), what="what all of them used")
        assert {len(bench.probe.results[one]) for one in waiting} == {1}
        assert {len(bench.probe.usage[one]) for one in waiting} == {1}


async def test_sigterm_leaves_at_once_with_everything_committed(bench: Bench) -> None:
    accepted = await bench.probe.submit(50)
    await eventually_async(lambda: all(bench.probe.work[one] for one in accepted))
    assert await asyncio.to_thread(bench.role.stop) == 0
    bench.role.start()
    [one] = await bench.probe.submit()
    await eventually_async(lambda: bench.probe.work[one])
    assert all(len(bench.probe.work[other]) == 1 for other in accepted)
