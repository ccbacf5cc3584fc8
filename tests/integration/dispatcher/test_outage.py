"""A dispatcher while its broker is frozen, killed and started again: no outcome is lost, no call is made twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.simulator import Simulator
from compose.local.broker import EmbeddedBroker
from core.settings import Settings
from schemas import topics
from tests.support.dispatcher_probe import QUEUE, DispatcherProbe, dispatching
from tests.support.roles import settings_for
from tests.support.waiting import eventually_async


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    made = EmbeddedBroker(tmp_path / "kafka", heap_mb=256, jvm_options=["-XX:TieredStopAtLevel=1"])
    made.start()
    await asyncio.to_thread(made.wait_ready)
    yield made
    if made.pid is not None:
        os.kill(made.pid, signal.SIGCONT)
    await asyncio.to_thread(made.stop)


@pytest.fixture
def settings(broker: EmbeddedBroker, tmp_path: Path, sim: Simulator) -> Settings:
    made, _ = settings_for(
        broker.bootstrap, tmp_path, f"outage-{time.time_ns()}.", upstream__urls=[f"{sim.root}/v1"],
        kafka__partitions=2, kafka__work_partitions=2, kafka__request_timeout_s=3, dispatcher__heartbeat_s=0.5,
        dispatcher__only="inference",
    )  # fmt: skip
    return made


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_outcomes_survive_an_outage_of_the_broker(
    probe: DispatcherProbe,
    settings: Settings,
    sim: Simulator,
    broker: EmbeddedBroker,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with dispatching(settings):
        ids = [await probe.submit(sim={"latency_ms": 1500 + 20 * number}) for number in range(40)]
        await eventually_async(lambda: sim.stats.current == 40, what="all calls")
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
        await eventually_async(lambda: sim.stats.completed == 40, what="the end of all calls")
        assert not any(probe.finished(one) for one in ids)
        if how == "killed":
            await eventually_async(lambda: not broker.is_running())
            broker.start()
            await asyncio.to_thread(broker.wait_ready)
        else:
            await eventually_async(lambda: "Kafka takes no events now" in caplog.text, what="a write given up")
            os.kill(broker.pid, signal.SIGCONT)
        await eventually_async(lambda: all(probe.finished(one) for one in ids), within_s=60, what="all outcomes")
        after = await probe.submit()
        await eventually_async(lambda: probe.finished(after), within_s=60, what="new work")
        await probe.committed(topics.work(QUEUE, 0), topics.work(QUEUE, 0), within_s=30)
    assert sim.stats.arrivals == 41, "nothing was called twice"
