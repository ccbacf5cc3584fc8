"""Kill -9 of any one role, or of the broker, under 2,000 callback tasks: none lost, one result record for each."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiokafka import TopicPartition

from bench.simulator import Simulator
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from tests.support.stack import KEY, Stack, stack
from tests.support.waiting import POLL_S, eventually_async

TASKS = 2_000
CONNECTIONS = 32


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("any-role") / "data"
    folder.mkdir()
    async with Simulator() as simulator:
        # In a thread: the simulator answers from this loop, and the stack is not ready without it.
        running = stack(folder, "--upstream", simulator.url)
        yield await asyncio.to_thread(running.__enter__)
        await asyncio.to_thread(running.__exit__, None, None, None)


class Seen:
    """How many result records each task has, from the first offset on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def take(self, _: TopicPartition, records: Records) -> None:
        self.counts.update((record.key or b"").decode() for record in records)


@pytest.fixture
async def seen(whole: Stack) -> AsyncIterator[Seen]:
    settings = Settings.model_validate({"kafka": {"bootstrap": whole.kafka}})
    found = Seen()
    tail = TopicFollower(settings, name="checker", topics=[settings.topic(topics.results(0))], handle=found.take)
    await tail.open()
    yield found
    await tail.close()


def body(number: int) -> bytes:
    """Build a put: most calls are short, one in ten is long enough to be claimed by a commit tick."""
    sim = {"latency_ms": 700 if number % 10 == 0 else 10}
    data = {"model": "sim", "messages": [{"role": "user", "content": str(number)}], "sim": sim}
    return json.dumps({"queue": "load", "endpoint": "/v1/chat/completions", "data": data}).encode()


async def put_all(whole: Stack, accepted: list[str]) -> None:
    """Put every task; a put without an answer is sent again and may have been accepted, so it does not count."""
    todo = iter(range(TASKS))
    headers = {"Authorization": f"Bearer {KEY}"}

    async def sender(session: aiohttp.ClientSession) -> None:
        for number in todo:
            while True:
                try:
                    async with session.post(f"{whole.url}/v1/queue/put", data=body(number), headers=headers) as answer:
                        found = await answer.json()
                        if answer.status == 200:
                            accepted.append(found["data"])
                            break
                        assert answer.status == 503, found
                        assert answer.headers["Retry-After"]
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                await asyncio.sleep(0.2)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        await asyncio.gather(*(sender(session) for _ in range(CONNECTIONS)))


@pytest.mark.parametrize("role", ["ingress", "streams-online", "dispatcher", "broker"])
async def test_kill_9_under_load(whole: Stack, seen: Seen, role: str) -> None:
    accepted: list[str] = []
    load = asyncio.create_task(put_all(whole, accepted))
    dice = random.Random(role)
    point = dice.randrange(TASKS // 5, TASKS // 2)
    await eventually_async(lambda: len(accepted) >= point, what="the middle of the load")
    await asyncio.to_thread(whole.kill, role)
    await asyncio.wait_for(load, 120)
    try:
        await eventually_async(
            lambda: all(seen.counts[one] for one in accepted), what="a result for every accepted task"
        )
    except AssertionError:
        missing = [one for one in accepted if not seen.counts[one]]
        pytest.fail(f"{len(missing)} of {len(accepted)} have no result, such as {missing[:3]}\n{whole.logs()}")
    assert len(set(accepted)) == TASKS
    assert set(seen.counts.values()) == {1}
    await eventually_async(whole.ready, what="a ready stack")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        for one in dice.sample(accepted, 50):
            # Results are written before rows: what is in the log may be in the read model a moment later.
            async with asyncio.timeout(30):
                while await status_of(session, whole, one) != "succeeded":  # noqa: ASYNC110 - only HTTP tells
                    await asyncio.sleep(POLL_S)


async def status_of(session: aiohttp.ClientSession, whole: Stack, task_id: str) -> str:
    async with session.get(f"{whole.url}/v1/queue/{task_id}") as answer:
        return str((await answer.json())["status"])
