"""Batches on a real broker, with scheduler and dispatcher as processes: fed, written, stopped, frozen."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.simulator import Simulator
from headrace.replaying.choice import Choice
from headrace.replaying.running import opened
from headrace.replaying.survey import surveyed
from tests.support.batch_probe import BatchProbe, batch_probe, input_of
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import eventually_async


class Running(NamedTuple):
    """A bench with its roles, feeder and writer in one of their own."""

    bench: BatchProbe
    batches: Role
    env: dict[str, str]
    folder: Path


@pytest.fixture
async def roles(kafka: str, tmp_path: Path, sim: Simulator) -> AsyncIterator[Running]:
    settings, env = settings_for(
        kafka, tmp_path, f"batches-{time.time_ns()}.", upstream__urls=[sim.url], kafka__partitions=2,
        kafka__work_partitions=2, streams__session_timeout_s=6, streams__lease_s=8, dispatcher__heartbeat_s=0.5,
        streams__retry_base_s=0.2, batches__window=200,
    )  # fmt: skip
    with ExitStack() as stack:
        async with batch_probe(settings) as bench:
            stack.enter_context(running("streams", "--level", "offline", env=env, log=tmp_path / "streams.log"))
            stack.enter_context(running("dispatcher", "--only", "inference", env=env, log=tmp_path / "inference.log"))
            batches = stack.enter_context(
                running("dispatcher", "--only", "batches", env=env, log=tmp_path / "batches.log")
            )
            yield Running(bench, batches, env, tmp_path)


def names(prefix: str, lines: range) -> list[str]:
    return sorted(f"{prefix}-{number}" for number in lines)


async def counts_what_became_tasks(bench: BatchProbe) -> None:
    """Hold that a dry run of a replay counts the lines that became tasks, whatever else was fed."""
    now_ms = time.time_ns() // 1_000_000
    async with opened(bench.settings) as lookup:
        found = await surveyed(bench.settings, lookup, Choice(levels=(1,)), now_ms=now_ms, on_read=lambda *_: None)
    assert found.tally.total == sum(row["fed"] for row in bench.rows.values()), found.passed_over


async def test_batches_end_with_every_line_in_one_of_their_files(roles: Running) -> None:
    bench = roles.bench
    good = await bench.create(input_of(300), home=0)
    bad = await bench.create(input_of(60, prefix="b", status=400), home=1)
    broken = await bench.create(b'{"custom_id":"x"}\nnonsense\n', home=1)
    row = await bench.until(good, "completed", within_s=120)
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


async def test_a_cancel_and_an_expiry_in_the_middle_leave_no_line_out(roles: Running) -> None:
    bench = roles.bench
    cancelled = await bench.create(input_of(500, latency_ms=1_000), home=0)
    expired = await bench.create(input_of(500, prefix="e", latency_ms=2_000), home=1, window_s=15)
    await eventually_async(lambda: bench.count(cancelled) > 50, within_s=90, what="some answers")
    await bench.cancel(cancelled)
    for batch_id, prefix, state in ((cancelled, "c", "cancelled"), (expired, "e", "expired")):
        row = await bench.until(batch_id, state)
        output, errors = await bench.names(batch_id)
        assert sorted(output + errors) == names(prefix, range(500))
        assert row["total"] == 500
        assert row["completed"] == len(output) < 500
        codes = {line["error"]["code"] for line in await bench.lines(batch_id, errors=True)}
        assert codes == {f"batch_{state}"}
    await counts_what_became_tasks(bench)


@pytest.mark.timeout(240)
async def test_a_frozen_writer_is_not_heard_any_more(roles: Running) -> None:
    bench, total = roles.bench, 1_200
    log = roles.folder / "second.log"
    with running("dispatcher", "--only", "batches", env=roles.env, log=log):
        batch = await bench.create(input_of(total, latency_ms=300))
        await eventually_async(lambda: bench.count(batch) >= 200, within_s=90, what="200 ends")
        roles.batches.send(signal.SIGSTOP)
        await eventually_async(lambda: bench.count(batch) >= 900, within_s=90, what="900 ends")
        roles.batches.send(signal.SIGCONT)
        row = await bench.until(batch, "completed", within_s=120)
    assert (row["total"], row["completed"], row["failed"]) == (total, total, 0)
    assert await bench.names(batch) == (names("c", range(total)), [])
    assert {len(times) for times in bench.results.values()} == {1}
    await counts_what_became_tasks(bench)
    stored = {path.name for path in (roles.folder / "objects" / "batches" / batch / "output").iterdir()}
    assert {f"{part['end']:012d}-{part['token']}" for part in row["parts"]} <= stored
