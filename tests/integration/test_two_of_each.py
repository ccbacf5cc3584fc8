"""Two of every role against one Kafka: work is shared, answers cross processes, and either of a pair may go."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack

import aiohttp
import pytest

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for

KEY = "hr-local"
HEADERS = {"Authorization": f"Bearer {KEY}"}


class Pair:
    """Two ingresses and the roles behind them."""

    def __init__(self, urls: list[str], roles: dict[str, list[Role]], simulator: Simulator) -> None:
        self.urls, self.roles, self.simulator = urls, roles, simulator


@pytest.fixture(scope="module")
async def pair(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka, folder, f"pair-{time.time_ns()}.", upstream__urls=[simulator.url], streams__session_timeout_s=12
        )
        await apply_topics(settings)
        ports = [free_port(), free_port()]
        with ExitStack() as stack:
            commands = {
                "ingress": [("ingress", "--port", str(port)) for port in ports],
                "streams": [("streams", "--level", level) for level in ("online", "offline") for _ in range(2)],
                "dispatcher": [("dispatcher",), ("dispatcher",)],
            }
            roles = {
                name: [
                    stack.enter_context(running(*arguments, env=env, log=folder / f"{name}-{number}.log"))
                    for number, arguments in enumerate(several)
                ]
                for name, several in commands.items()
            }
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                await _until_ready(url)
            yield Pair(urls, roles, simulator)


async def _until_ready(url: str) -> None:
    give_up = time.monotonic() + 60
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
                    said = await answer.text()
            except aiohttp.ClientError as error:
                said = str(error)
            assert time.monotonic() < give_up, said
            await asyncio.sleep(0.1)


def put_body(number: int, mode: str, **sim: object) -> bytes:
    data = {"model": "sim", "messages": [{"role": "user", "content": f"question {number}"}], "sim": sim}
    put = {"queue": "pair", "endpoint": "/v1/chat/completions", "response_mode": mode, "data": data}
    return json.dumps(put).encode()


async def put(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, bytes, str]:
    async with session.post(f"{url}/v1/queue/put", data=body, headers=HEADERS) as answer:
        return answer.status, await answer.read(), answer.headers.get("x-task-id", "")


async def test_answers_find_the_ingress_that_waits(pair: Pair) -> None:
    async with aiohttp.ClientSession() as session:
        calls = [put(session, pair.urls[n % 2], put_body(n, "blocking", latency_ms=20, key=str(n))) for n in range(200)]
        answers = await asyncio.gather(*calls)
    assert {status for status, _, _ in answers} == {200}
    texts = [json.loads(body)["choices"][0]["message"]["content"] for _, body, _ in answers]
    assert len(set(texts)) == 200
    assert {pair.simulator.stats.keys[str(n)].arrivals for n in range(200)} == {1}


async def test_a_task_put_here_is_seen_there_at_once(pair: Pair) -> None:
    async with aiohttp.ClientSession() as session:
        for number in range(20):
            here, there = pair.urls[number % 2], pair.urls[(number + 1) % 2]
            status, body, task_id = await put(session, here, put_body(number, "callback"))
            assert (status, json.loads(body)["data"]) == (200, task_id)
            async with session.get(f"{there}/v1/queue/{task_id}", headers=HEADERS) as answer:
                assert answer.status == 200
                assert (await answer.json())["task_id"] == task_id


async def test_ids_of_two_ingresses_never_meet(pair: Pair) -> None:
    async with aiohttp.ClientSession() as session:
        calls = [put(session, pair.urls[n % 2], put_body(n, "callback")) for n in range(600)]
        answers = await asyncio.gather(*calls)
    assert len({task_id for _, _, task_id in answers}) == 600


async def test_streams_cross_processes(pair: Pair) -> None:
    async with aiohttp.ClientSession() as session:
        calls = [put(session, pair.urls[n % 2], put_body(n, "streaming", tokens=12, token_ms=10)) for n in range(20)]
        answers = await asyncio.gather(*calls)
    for status, body, _ in answers:
        assert status == 200
        frames = [line for line in body.split(b"\n\n") if line.startswith(b"data: ")]
        assert frames[-1] == b"data: [DONE]"
        words = [json.loads(frame[6:])["choices"][0]["delta"].get("content") or "" for frame in frames[:-1]]
        assert len("".join(words).split()) == 12


@pytest.mark.parametrize("role", ["streams", "dispatcher"])
async def test_a_rolling_restart_under_load_runs_nothing_twice(pair: Pair, role: str) -> None:
    stop = asyncio.Event()
    seen: Counter[int] = Counter()
    keys: list[str] = []

    async def load(session: aiohttp.ClientSession, lane: int) -> None:
        while not stop.is_set():
            key = f"{role}-{lane}-{len(keys)}"
            keys.append(key)
            status, _, _ = await put(session, pair.urls[lane % 2], put_body(lane, "blocking", latency_ms=60, key=key))
            seen[status] += 1

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for lane in range(8):
            group.create_task(load(session, lane))
        for one in pair.roles[role]:
            assert await asyncio.to_thread(one.stop) == 0
            one.start()
            await asyncio.gather(*(_until_ready(url) for url in pair.urls))
        stop.set()
    assert set(seen) == {200}
    assert {pair.simulator.stats.keys[key].arrivals for key in keys} == {1}


async def test_who_was_given_the_outcome_finds_it(pair: Pair) -> None:
    async with aiohttp.ClientSession() as session:
        for number in range(20):
            mode = "blocking" if number % 2 else "streaming"
            status, _, task_id = await put(session, pair.urls[0], put_body(number, mode))
            assert status == 200
            async with session.get(f"{pair.urls[0]}/v1/queue/{task_id}", headers=HEADERS) as answer:
                found = await answer.json()
            assert (found["status"], found["result"]["status_code"]) == ("succeeded", 200)
