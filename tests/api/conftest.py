"""A stack whose model server is the simulator in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.simulator import Simulator
from tests.support.stack import Stack, stack


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture(scope="module")
async def whole(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("api") / "data"
    folder.mkdir()
    # In a thread: the simulator answers from this loop, and the stack is not ready without it.
    running = stack(folder, "--upstream", simulator.url, ingress__keep_alive_s=0.1)
    yield await asyncio.to_thread(running.__enter__)
    await asyncio.to_thread(running.__exit__, None, None, None)
