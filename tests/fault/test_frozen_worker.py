"""A dispatcher that is frozen beyond its lease: its tasks are done elsewhere, and its own outcomes come too late."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bench.simulator import Simulator
from bench.wire import Exchange
from tests.support.dispatcher_probe import dispatching
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.scheduler_probe import SchedulerProbe, scheduler_probe
from tests.support.waiting import eventually_async, until

TASKS = 12
LEASE_S = 8
"""Longer than a machine may stand still: only the worker that is frozen shall lose its tasks."""
WITHIN_S = 120
DROPPED = re.compile(r'headrace_scheduler_dropped_total\{level="online",reason="stale_finished"\} (\d+)')


class HoldingSimulator(Simulator):
    """A model server that can be told to answer no task for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.held: list[str | None] = []

    def handle(self, exchange: Exchange) -> None:
        """Take a request, and answer it as soon as that is allowed; a health check is answered at once."""
        if not self.counts(exchange.request):
            super().handle(exchange)
            return
        self.held.append(self.key_of(exchange.request))
        exchange.spawn(self._handle(exchange), name="held request")

    async def _handle(self, exchange: Exchange) -> None:
        await self.answers.wait()
        super().handle(exchange)


class Bench:
    """A scheduler, a dispatcher to be frozen, another in this process, and the tests' view of the level."""

    def __init__(self, probe: SchedulerProbe, frozen: Role, simulator: HoldingSimulator, metrics: str) -> None:
        self.probe, self.frozen, self.simulator, self._metrics = probe, frozen, simulator, metrics

    @property
    def pids(self) -> tuple[int, int]:
        """Return the process ids of the dispatchers."""
        return self.frozen.pid, os.getpid()

    def held(self, ids: list[str], pid: int) -> list[str]:
        """List the tasks that a dispatcher has claimed: its process id is part of its name."""
        rows = {one: self.probe.rows.get(one) for one in ids}
        return [one for one, row in rows.items() if row and row["state"] == "processing" and f"-{pid}-" in str(row)]

    async def dropped(self) -> int:
        """Ask the scheduler how many outcomes came too late."""
        async with aiohttp.ClientSession() as session, session.get(self._metrics) as answer:
            found = DROPPED.search((await answer.text()).replace(".0\n", "\n"))
        return int(found[1]) if found else 0


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with HoldingSimulator() as simulator:
        settings, env = settings_for(
            kafka,
            tmp_path,
            f"frozen-{time.time_ns()}.",
            upstream__urls=[simulator.url],
            streams__lease_s=LEASE_S,
            dispatcher__heartbeat_s=0.4,
            dispatcher__component="inference",
            dispatcher__shutdown_grace_s=1,
        )
        port = free_port()
        measured = {**env, "HEADRACE_METRICS_PORT": str(port)}
        async with scheduler_probe(settings) as probe:
            with (
                running("streams", "--level", "online", env=measured, log=tmp_path / "streams.log"),
                running("dispatcher", env=env, log=tmp_path / "dispatcher.log") as frozen,
            ):
                async with dispatching(settings):
                    await eventually_async(
                        lambda: probe.heartbeats and len(probe.heartbeats[-1]["workers"]) == 2,
                        within_s=WITHIN_S,
                        what="two live workers",
                    )
                    yield Bench(probe, frozen, simulator, f"http://127.0.0.1:{port}/metrics")
                    simulator.answers.set()


async def both_hold(bench: Bench) -> list[str]:
    """Submit tasks until both dispatchers hold some: who reads what is settled only after a while."""
    give_up = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up:
        bench.simulator.answers.clear()
        ids = await bench.probe.submit(TASKS)
        await eventually_async(lambda ids=ids: set(ids) <= set(bench.simulator.held), what="a call for every task")  # type: ignore[misc]
        await eventually_async(
            lambda ids=ids: sum(len(bench.held(ids, pid)) for pid in bench.pids) == TASKS,  # type: ignore[misc]
            what="a claim of every task",
        )
        if all(bench.held(ids, pid) for pid in bench.pids):
            return ids
        bench.simulator.answers.set()
        await eventually_async(lambda ids=ids: all(bench.probe.results[one] for one in ids))  # type: ignore[misc]
    raise AssertionError("one dispatcher is never given work")


@pytest.mark.timeout(600)
async def test_a_worker_frozen_beyond_its_lease_never_makes_a_second_outcome(bench: Bench) -> None:
    ids = await both_hold(bench)
    theirs = bench.held(ids, bench.frozen.pid)
    before = await bench.dropped()
    bench.frozen.send(signal.SIGSTOP)
    bench.simulator.answers.set()
    try:
        await eventually_async(
            lambda: all(bench.probe.results[one] for one in ids), within_s=WITHIN_S, what="an outcome of every task"
        )
        assert not bench.held(ids, bench.frozen.pid)
    finally:
        bench.frozen.send(signal.SIGCONT)
    assert {one: bench.probe.results[one][0]["attempt"] for one in theirs} == dict.fromkeys(theirs, 2)
    await until(bench.dropped, lambda count: count >= before + len(theirs), within_s=WITHIN_S)
    assert {len(bench.probe.results[one]) for one in ids} == {1}
    assert {bench.probe.row_states[one][-1] for one in ids} == {"completed"}
    arrivals = bench.simulator.stats.keys
    assert {one: arrivals[one].arrivals for one in ids} == {one: 1 + (one in theirs) for one in ids}
    # The one that was away works again.
    await both_hold(bench)
