"""The broker's disk is full: a limit on the size of its files makes its writes fail as a full disk does."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from bench.simulator import Simulator
from tests.support.bella import PUT
from tests.support.stack import KEY, Stack, stack
from tests.support.waiting import eventually_async

FILE_BYTES = 12 * 1024 * 1024
"""Above the 10 MB that Kafka gives an index file at once, so that only the logs themselves meet the limit."""
DATA = {"model": "sim", "messages": [{"role": "user", "content": "x" * 200_000}]}
PUTS = 400


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Simulator() as simulator:
        manager = stack(tmp_path / "data", "--upstream", simulator.url, kafka__partitions=1, kafka__request_timeout_s=3)
        # In a thread: the simulator answers from this loop, and the stack is not ready without it.
        running = await asyncio.to_thread(manager.__enter__)
        try:
            yield running
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


async def test_a_full_disk_gives_503_and_loses_nothing(whole: Stack) -> None:
    task = {"queue": "disk", "endpoint": "/v1/chat/completions", "data": DATA}
    accepted: list[str] = []
    refused = 0
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=whole.url, headers=headers, timeout=30) as client:
        broker = whole.pid("broker")
        resource.prlimit(broker, resource.RLIMIT_FSIZE, (FILE_BYTES, resource.RLIM_INFINITY))
        for _ in range(PUTS):
            answer = await client.post(PUT, json=task)
            if answer.status_code == 200:
                accepted.append(answer.json()["data"])
                continue
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
            refused += 1
            break
        assert accepted
        assert refused, "the disk never was full"
        # Kafka ends itself when its only disk fails; the supervisor starts it anew, now with room.
        await eventually_async(lambda: whole.pid("broker") != broker, what="a new broker")

        async def accepts() -> bool:
            return (await client.post(PUT, json=task)).status_code == 200

        await until(accepts, whole)
        for one in accepted:
            await until(lambda: succeeded(client, one), whole)  # noqa: B023 - awaited before the next one


async def until(condition: Callable[[], Awaitable[bool]], whole: Stack) -> None:
    """Return when it is true; fail the test when it is not within a minute."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + 60
    while not await condition():
        assert loop.time() < give_up, whole.logs()
        await asyncio.sleep(0.1)


async def succeeded(client: httpx.AsyncClient, task_id: str) -> bool:
    """Tell whether a task is done; a broker that has just come back may refuse for a moment."""
    found = await client.get(f"/v1/queue/{task_id}")
    assert found.status_code in (200, 503), found.text
    return found.status_code == 200 and found.json()["status"] == "succeeded"
