"""An upstream, settings and topics of its own for each test."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.simulator import Simulator
from core.settings import Settings
from tests.support.dispatcher_probe import DispatcherProbe
from tests.support.roles import settings_for

_prefixes = itertools.count()


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
def settings(kafka: str, tmp_path: Path, sim: Simulator) -> Settings:
    prefix = f"dispatch{next(_prefixes)}-{time.time_ns()}."
    made, _ = settings_for(
        kafka, tmp_path, prefix, upstream__urls=[f"{sim.root}/v1"], kafka__partitions=2, kafka__work_partitions=2,
        dispatcher__grace_s=1, dispatcher__heartbeat_s=0.5, dispatcher__only="inference",
    )  # fmt: skip
    return made


@pytest.fixture
async def probe(settings: Settings) -> AsyncIterator[DispatcherProbe]:
    made = DispatcherProbe(settings)
    await made.open()
    yield made
    await made.close()
