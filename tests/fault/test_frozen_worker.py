"""A dispatcher that is frozen beyond its lease: its tasks are done elsewhere, and its own outcomes come too late."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.scheduler_probe import SchedulerProbe, scheduler_probe
from tests.support.waiting import eventually_async

TASKS = 12
CALL_MS = 3_000
DROPPED = re.compile(r'headrace_scheduler_dropped_total\{level="online",reason="late_finished"\} (\d+)')


class Bench:
    """A scheduler, two dispatchers and the tests' view of the lane."""

    def __init__(self, probe: SchedulerProbe, dispatchers: list[Role], metrics: str) -> None:
        self.probe, self.dispatchers, self._metrics = probe, dispatchers, metrics

    def held(self, ids: list[str], role: Role) -> list[str]:
        """List the tasks that a dispatcher has claimed: its process id is part of its name."""
        rows = {one: self.probe.rows.get(one) for one in ids}
        mark = f"-{role.pid}-"
        return [one for one, row in rows.items() if row and row["state"] == "processing" and mark in str(row["worker"])]

    async def dropped(self) -> int:
        """Ask the scheduler how many outcomes came too late."""
        async with aiohttp.ClientSession() as session, session.get(self._metrics) as answer:
            found = DROPPED.search((await answer.text()).replace(".0\n", "\n"))
        return int(found[1]) if found else 0


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running_one:
        yield running_one


@pytest.fixture
async def bench(kafka: str, tmp_path: Path, simulator: Simulator) -> AsyncIterator[Bench]:
    settings, env = settings_for(
        kafka, tmp_path, f"frozen-{time.time_ns()}.", upstream__urls=[simulator.url], kafka__partitions=4,
        streams__session_timeout_s=6, streams__lease_s=2, dispatcher__heartbeat_s=0.4, dispatcher__only="inference",
    )  # fmt: skip
    await apply_topics(settings)
    port = free_port()
    with ExitStack() as stack:
        async with scheduler_probe(settings) as probe:
            measured = {**env, "HEADRACE_METRICS_PORT": str(port)}
            stack.enter_context(running("streams", "--level", "online", env=measured, log=tmp_path / "streams.log"))
            dispatchers = [
                stack.enter_context(running("dispatcher", env=env, log=tmp_path / f"dispatcher-{number}.log"))
                for number in range(2)
            ]
            await eventually_async(
                lambda: probe.pulses and len(probe.pulses[-1]["workers"]) == 2, within_s=60, what="two live workers"
            )
            yield Bench(probe, dispatchers, f"http://127.0.0.1:{port}/metrics")


async def both_work(bench: Bench) -> list[str]:
    """Submit long tasks until both dispatchers hold some: who reads what is settled only after a while."""
    data = {"model": "m", "messages": [], "sim": {"latency_ms": CALL_MS}}
    for _ in range(10):
        ids = await bench.probe.submit(TASKS, data=json.dumps(data).encode())
        await eventually_async(
            lambda ids=ids: sum(len(bench.held(ids, role)) for role in bench.dispatchers) == TASKS,  # type: ignore[misc]
            what="a claim of every task",
        )
        if all(bench.held(ids, role) for role in bench.dispatchers):
            return ids
        await eventually_async(lambda ids=ids: all(bench.probe.results[one] for one in ids))  # type: ignore[misc]
    raise AssertionError("one dispatcher is never given work")


@pytest.mark.timeout(180)
async def test_a_worker_frozen_beyond_its_lease_never_makes_a_second_outcome(
    bench: Bench, simulator: Simulator
) -> None:
    ids = await both_work(bench)
    frozen = bench.dispatchers[0]
    theirs = bench.held(ids, frozen)
    before = await bench.dropped()
    frozen.send(signal.SIGSTOP)
    try:
        await eventually_async(
            lambda: all(bench.probe.results[one] for one in ids), within_s=45, what="an outcome of every task"
        )
        assert not bench.held(ids, frozen)
    finally:
        frozen.send(signal.SIGCONT)
    assert {one: bench.probe.results[one][0]["attempt"] for one in theirs} == dict.fromkeys(theirs, 2)
    late_until = time.monotonic() + 20
    while await bench.dropped() < before + len(theirs):
        assert time.monotonic() < late_until, "the late outcomes were not counted"
    assert {len(bench.probe.results[one]) for one in ids} == {1}
    assert {bench.probe.row_states[one][-1] for one in ids} == {"completed"}
    assert {one: simulator.stats.keys[one].arrivals for one in ids} == {one: 1 + (one in theirs) for one in ids}
    # The one that was away works again.
    await both_work(bench)
