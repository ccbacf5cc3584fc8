"""A broker that hangs: what was sent and never confirmed is told as such, can be found, and is taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bench.simulator import Simulator
from bench.sink import Sink
from tests.support.freezing import freeze, thaw
from tests.support.stack import KEY, Stack, stack
from tests.support.waiting import eventually_async


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def whole(upstream: Simulator, tmp_path: Path) -> AsyncIterator[Stack]:
    running = stack(tmp_path / "data", "--upstream", upstream.url, kafka__request_timeout_s=3)
    yield await asyncio.to_thread(running.__enter__)
    await asyncio.to_thread(running.__exit__, None, None, None)


async def test_a_write_that_was_never_confirmed_is_withdrawn(whole: Stack, upstream: Simulator) -> None:
    async with Sink() as sink, aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        data = {"model": "sim", "messages": [], "sim": {"latency_ms": 4_000}}
        put = {"queue": "hang", "endpoint": "/v1/chat/completions", "callback_url": sink.url, "data": data}

        async def send() -> tuple[int, str, str, dict[str, object]]:
            async with session.post(f"{whole.url}/v1/queue/put", data=json.dumps(put)) as answer:
                headers = answer.headers
                found = await answer.json()
                return answer.status, headers.get("x-task-id", ""), headers.get("Retry-After", ""), found

        async def state(task_id: str) -> str:
            async with session.get(f"{whole.url}/v1/queue/{task_id}") as answer:
                return str((await answer.json()).get("status", answer.status))

        status, first, _, _ = await send()
        assert status == 200
        broker = whole.pid("broker")
        freeze(broker)
        try:
            status, hung, retry_after, said = await send()
            assert (status, bool(hung), bool(retry_after)) == (503, True, True)
            assert "may or may not" in str(said["message"])
            status, nobody, _, said = await send()  # the producer is known to be dead: nothing was sent
            assert (status, nobody) == (503, "")
            assert "nothing was accepted" in str(said["message"])
        finally:
            thaw(broker)
        await eventually_async(whole.ready, what="a ready stack")
        seen: list[str] = []

        async def withdrawn() -> None:
            while not seen or seen[-1] not in ("cancelled", "404"):
                seen.append(await state(hung))
                await asyncio.sleep(0.1)

        await asyncio.wait_for(withdrawn(), 30)
        assert "succeeded" not in seen
        await eventually_async(lambda: first in sink.received, what="the callback of the first task")
        done = sink.received.get(hung, [])
        assert all(json.loads(delivery.body)["status_code"] == 499 for delivery in done)
