"""A dispatcher while its broker is frozen, killed and started again: no outcome is lost, no call is made twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compose.local.broker import EmbeddedBroker
from core.settings.models import Settings
from tests.support.dispatcher_probe import DispatcherProbe, dispatching
from tests.support.freezing import freeze
from tests.support.held_upstream import HELD, HeldUpstream
from tests.support.waiting import eventually_async


@pytest.fixture(scope="module")
async def broker(folder: Path) -> AsyncIterator[EmbeddedBroker]:
    made = EmbeddedBroker(folder / "kafka", heap_mb=256, jvm_options=["-XX:TieredStopAtLevel=1"])
    made.start()
    await asyncio.to_thread(made.wait_ready)
    yield made
    if made.pid is not None:
        os.kill(made.pid, signal.SIGCONT)
    await asyncio.to_thread(made.stop)


@pytest.fixture(scope="module")
def kafka(broker: EmbeddedBroker) -> str:
    """Return the address of the broker that the tests may freeze and kill."""
    return broker.bootstrap


@pytest.fixture(scope="module")
def changes(changes: dict[str, object]) -> dict[str, object]:
    """Give a write up soon."""
    return {**changes, "kafka__request_timeout_s": 3}


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_outcomes_survive_an_outage_of_the_broker(
    probe: DispatcherProbe,
    settings: Settings,
    sim: HeldUpstream,
    broker: EmbeddedBroker,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await probe.use_queue()
    async with dispatching(settings):
        ids = [await probe.submit(sim=HELD) for _ in range(40)]
        await eventually_async(lambda: sim.stats.current == 40, what="all calls")
        assert broker.pid is not None
        if how == "frozen":
            freeze(broker.pid)
        else:
            os.kill(broker.pid, signal.SIGKILL)
        for one in ids:
            sim.answer(one)
        await eventually_async(lambda: sim.stats.completed == 40, what="the end of all calls")
        assert not any(probe.finished(one) for one in ids)
        if how == "killed":
            await eventually_async(lambda: not broker.is_running(), what="the end of the broker")
            broker.start()
            await asyncio.to_thread(broker.wait_ready)
        else:
            await eventually_async(lambda: "event writes are failing" in caplog.text, what="a write given up")
            os.kill(broker.pid, signal.SIGCONT)
        await eventually_async(lambda: all(probe.finished(one) for one in ids), what="all outcomes")
        after = await probe.submit()
        await eventually_async(lambda: probe.finished(after), what="new work")
        await probe.work_committed()
    assert sim.stats.arrivals == 41, "nothing was called twice"
