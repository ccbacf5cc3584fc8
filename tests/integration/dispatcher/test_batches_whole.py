"""Batches on a real broker and a scheduler process: fed, written, cancelled, expired, and a writer that is frozen."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.kafka.cluster import Cluster
from core.settings.models import Settings
from dispatcher.batches.service import GROUP
from headrace.replay.choice import Choice
from headrace.replay.estimate import estimated
from headrace.replay.run import opened
from streams.state_machine.batches import line_task_id
from tests.support.batch_probe import BatchProbe, batch_probe, input_of
from tests.support.dispatcher_probe import dispatching
from tests.support.held_upstream import HELD, HeldUpstream
from tests.support.roles import running
from tests.support.waiting import eventually_async

ANSWERED = 60


@pytest.fixture(scope="module")
def changes(changes: dict[str, object]) -> dict[str, object]:
    """Have enough slots for all lines that may be out."""
    return {
        **changes,
        "dispatcher__component": "all",
        "dispatcher__concurrency": 512,
        "streams__session_timeout_s": 6,
        "streams__lease_s": 8,
        "streams__retry_base_s": 0.2,
        "batches__max_in_flight": 200,
    }


@pytest.fixture(scope="module")
async def bench(settings: Settings, env: dict[str, str], folder: Path) -> AsyncIterator[BatchProbe]:
    """Run a scheduler as a process, and in this one what calls the upstream, and what feeds and writes batches."""
    async with batch_probe(settings) as made, AsyncExitStack() as stack:
        stack.enter_context(running("streams", "--level", "offline", env=env, log=folder / "streams.log"))
        for only in ("inference", "batches"):
            part = settings.model_copy(
                update={"dispatcher": settings.dispatcher.model_copy(update={"component": only})}
            )
            await stack.enter_async_context(dispatching(part))
        yield made


def names(prefix: str, lines: range) -> list[str]:
    return sorted(f"{prefix}-{number}" for number in lines)


async def counts_what_became_tasks(bench: BatchProbe) -> None:
    """Hold that a dry run of a replay counts the lines that became tasks, whatever else was fed."""
    now_ms = time.time_ns() // 1_000_000
    async with opened(bench.settings) as lookup:
        found = await estimated(bench.settings, lookup, Choice(levels=(1,)), now_ms=now_ms, on_read=lambda *_: None)
    assert found.tally.total == sum(row["fed"] for row in bench.rows.values()), found.passed_over


async def test_batches_end_with_every_line_in_one_of_their_files(bench: BatchProbe) -> None:
    good = await bench.create(input_of(300), home=0)
    bad = await bench.create(input_of(60, prefix="b", status=400), home=1)
    broken = await bench.create(b'{"custom_id":"x"}\nnonsense\n', home=1)
    row = await bench.until(good, "completed")
    assert (row["total"], row["completed"], row["failed"]) == (300, 300, 0)
    assert row["usage"]["total_tokens"] > 0
    assert await bench.names(good) == (names("c", range(300)), [])
    line = (await bench.lines(good, errors=False))[0]
    assert line["response"]["status_code"] == 200
    assert line["response"]["body"]["choices"][0]["message"]["content"]
    row = await bench.until(bad, "completed")
    assert (row["completed"], row["failed"]) == (0, 60)
    assert await bench.names(bad) == ([], names("b", range(60)))
    row = await bench.until(broken, "failed")
    assert [one["line"] for one in row["errors"]] == [1, 2]
    assert bench.states[good] == ["validating", "in_progress", "finalizing", "completed"]
    assert {len(times) for times in bench.results.values()} == {1}


async def answered(bench: BatchProbe, sim: HeldUpstream, batches: list[str], until: str) -> None:
    """Have so many lines of each batch answered, until they are or one of the batches has ended."""
    before = {batch_id: bench.count(batch_id) for batch_id in batches}
    chosen: dict[str, set[str]] = {batch_id: set() for batch_id in batches}
    lines = {batch_id: {line_task_id(bench.rows[batch_id], number) for number in range(500)} for batch_id in batches}

    def enough() -> bool:
        for task_id in sim.held:
            for batch_id in batches:
                fits = task_id in lines[batch_id] and before[batch_id] + len(chosen[batch_id]) < ANSWERED
                if fits or task_id in chosen[batch_id]:  # a call that was cut off is made again
                    chosen[batch_id].add(task_id)
                    sim.answer(task_id)
        return bench.count(until) >= ANSWERED or bench.ended(until)

    await eventually_async(enough, within_s=120, what=f"{ANSWERED} answers")


async def test_a_cancel_and_an_expiry_in_the_middle_leave_no_line_out(bench: BatchProbe, sim: HeldUpstream) -> None:
    cancelled = await bench.create(input_of(500, **HELD), home=0)
    expired = await bench.create(input_of(500, prefix="e", **HELD), home=1, window_s=10)
    both = [cancelled, expired]
    await eventually_async(lambda: {*both} <= {*bench.rows}, what="the batches")
    await answered(bench, sim, both, until=cancelled)
    await bench.cancel(cancelled)
    await answered(bench, sim, [expired], until=expired)
    for batch_id, prefix, state in ((cancelled, "c", "cancelled"), (expired, "e", "expired")):
        row = await bench.until(batch_id, state)
        output, errors = await bench.names(batch_id)
        assert sorted(output + errors) == names(prefix, range(500))
        assert row["total"] == 500
        assert row["completed"] == len(output) < 500
        codes = {line["error"]["code"] for line in await bench.lines(batch_id, errors=True)}
        assert codes == {f"batch_{state}"}
    assert bench.rows[cancelled]["completed"] == ANSWERED
    await counts_what_became_tasks(bench)


async def test_parts_of_a_paused_writer_are_not_accepted(
    bench: BatchProbe, settings: Settings, env: dict[str, str], folder: Path
) -> None:
    total = 800
    with running("dispatcher", "--component", "batches", env=env, log=folder / "frozen.log") as role:
        batch = await bench.create(input_of(total, latency_ms=300), home=await home_of(settings, role.pid))
        await eventually_async(lambda: bench.count(batch) >= 150, within_s=120, what="150 ends")
        role.send(signal.SIGSTOP)
        # More than it had fed: the other one works for its partition now.
        await eventually_async(lambda: bench.count(batch) >= 550, within_s=120, what="550 ends")
        role.send(signal.SIGCONT)
        row = await bench.until(batch, "completed")
    assert (row["total"], row["completed"], row["failed"]) == (total, total, 0)
    assert await bench.names(batch) == (names("c", range(total)), [])
    assert {len(times) for times in bench.results.values()} == {1}
    await counts_what_became_tasks(bench)
    stored = {path.name for path in (folder / "objects" / "batches" / batch / "output").iterdir()}
    assert {f"{part['end']:012d}-{part['token']}" for part in row["parts"]} <= stored


async def home_of(settings: Settings, pid: int) -> int:
    """Wait until two share the batches, and return the partition of the one with a process id."""
    group, cluster = settings.topic(GROUP), Cluster(settings, name="test")
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):  # before the first group of a new broker
                members = (await cluster.members([group]))[group]
                shares = {member.client: member.partitions for member in members}
                if len(shares) == 2 and all(shares.values()):
                    [share] = [share for client, share in shares.items() if f"-{pid}-" in client]
                    return share[0].partition
            await asyncio.sleep(0.1)
