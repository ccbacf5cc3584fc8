"""A running simulator and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from bench.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """A simulator inside the test's own loop."""
    async with Simulator() as running:
        yield running


@pytest.fixture
async def client(sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the simulator."""
    async with httpx.AsyncClient(base_url=sim.root, timeout=60.0) as running:
        yield running
