"""One stack for all modules here, on the broker of the run; its model server is the simulator in the test's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bench.simulator import Simulator
from core.settings.loader import load_settings
from tests.support.kafka import declared_topics
from tests.support.sdk_program import Reports, reports_of_both
from tests.support.stack import KEY, Stack, stack

QUEUES = {
    "default": {"model": "sim-instant"},
    "slow": {"model": "sim-tokens-400-token-50"},
    "silent": {"model": "sim-latency-1000"},
    "broken": {"model": "sim-status-500"},
    "cut": {"model": "sim-cut"},
}
"""What completion-messages are answered by, which name no model."""
SETTINGS: dict[str, Any] = {
    # Shorter than the pauses of the model server, so that every stream has keep-alives in it.
    "ingress.keep_alive_s": 0.1,
    # What the model server answers is what the client gets.
    "streams.max_attempts": 1,
    "storage.sweep_s": 0.5,
    "dify.max_image_bytes": 100_000,
    "queues": QUEUES,
    "models": {"sim-instant": {"prompt_price": "0.001", "completion_price": "0.002"}},
    "kafka.partitions": 2,
    "kafka.work_partitions": 2,
}


@pytest.fixture(scope="package")
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture(scope="package")
def shared(kafka: str) -> dict[str, Any]:
    """Give the settings that all roles have."""
    return {**SETTINGS, "kafka.bootstrap": kafka, "kafka.topic_prefix": f"api-{time.time_ns()}."}


@pytest.fixture(scope="package")
async def whole(
    simulator: Simulator, shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("api") / "data"
    folder.mkdir()
    changes = {name.replace(".", "__"): value for name, value in shared.items()}
    async with declared_topics(load_settings(environ={}, flags=shared)):
        # In a thread: the simulator answers from this loop, and the stack is not ready without it.
        running = stack(folder, "--upstream", simulator.url, **changes)
        yield await asyncio.to_thread(running.__enter__)
        await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.fixture(scope="package")
async def reports(whole: Stack) -> Reports:
    """Run the programs with both versions of the OpenAI SDK."""
    return await reports_of_both(whole.url, KEY)


@pytest.fixture(params=["newest", "one major before"])
def ran(request: pytest.FixtureRequest, reports: Reports) -> dict[str, Any]:
    """Give what the programs report with one version."""
    return reports[request.param]
