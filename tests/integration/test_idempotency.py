"""Idempotency-Key over three ingress processes, a real scheduler and a dispatcher: twins are one task."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import aiohttp
import pytest

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import eventually_async

HEADERS = {"authorization": "Bearer hr-local"}
Answer = tuple[int, bytes, str]


class Site:
    """Three ingresses, one scheduler and one dispatcher before a simulator."""

    def __init__(self, urls: list[str], ingresses: list[Role], streams: Role, simulator: Simulator) -> None:
        self.urls, self.ingresses, self.streams, self.simulator = urls, ingresses, streams, simulator

    def arrivals(self, name: str) -> int:
        """Count the calls of one test at the model server."""
        return self.simulator.stats.keys[name].arrivals if name in self.simulator.stats.keys else 0


@pytest.fixture(scope="module")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("twins")
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka, folder, f"twins-{time.time_ns()}.", upstream__urls=[simulator.url], streams__session_timeout_s=12
        )
        await apply_topics(settings)
        ports = [free_port() for _ in range(3)]
        with ExitStack() as stack:

            def role(name: str, *arguments: str) -> Role:
                return stack.enter_context(running(*arguments, env=env, log=folder / f"{name}.log"))

            streams = role("streams", "streams", "--level", "online")
            role("streams-offline", "streams", "--level", "offline")
            role("dispatcher", "dispatcher")
            ingresses = [role(f"ingress-{port}", "ingress", "--port", str(port)) for port in ports]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                await until_ready(url)
            yield Site(urls, ingresses, streams, simulator)


async def until_ready(url: str) -> None:
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


async def put(
    session: aiohttp.ClientSession, url: str, key: str, *, mode: str = "callback", text: str = "hello", **sim: object
) -> Answer:
    data = {"model": "sim", "messages": [{"role": "user", "content": text}], "sim": {"key": key, **sim}}
    body = {"queue": "twins", "endpoint": "/v1/chat/completions", "response_mode": mode, "data": data}
    headers = {**HEADERS, "idempotency-key": key}
    async with session.post(f"{url}/v1/queue/put", json=body, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers.get("x-task-id", "")


async def status(session: aiohttp.ClientSession, url: str, task_id: str) -> dict[str, object]:
    async with session.get(f"{url}/v1/queue/{task_id}", headers=HEADERS) as answer:
        assert answer.status == 200
        found: dict[str, object] = await answer.json()
        return found


async def ended(session: aiohttp.ClientSession, site: Site, task_id: str) -> None:
    give_up = time.monotonic() + 20
    while (await status(session, site.urls[0], task_id))["status"] != "succeeded":
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)


async def test_a_thousand_twins_over_three_ingresses_are_one_task(site: Site) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        calls = [put(session, site.urls[n % 3], "thousand", latency_ms=200) for n in range(1000)]
        answers = await asyncio.gather(*calls)
        assert {code for code, _, _ in answers} == {200}
        assert len({(json.loads(body)["data"], task_id) for _, body, task_id in answers}) == 1
        await ended(session, site, answers[0][2])
    assert site.arrivals("thousand") == 1


async def test_blocking_twins_get_the_answer_of_the_first(site: Site) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        calls = [put(session, site.urls[n % 3], "blocking", mode="blocking", latency_ms=500) for n in range(60)]
        answers = await asyncio.gather(*calls)
        later = await put(session, site.urls[0], "blocking", mode="blocking", latency_ms=500)
        posted = await put(session, site.urls[1], "blocking", latency_ms=500)
    assert set(answers) == {later}
    assert (later[0], json.loads(posted[1])["data"]) == (200, later[2])
    assert site.arrivals("blocking") == 1


async def test_streaming_twins_get_the_text_of_the_first(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        calls = [put(session, site.urls[n % 3], "stream", mode="streaming", tokens=8, token_ms=30) for n in range(6)]
        answers = await asyncio.gather(*calls)
        answers.append(await put(session, site.urls[1], "stream", mode="streaming", tokens=8, token_ms=30))
    frames = [[line for line in body.split(b"\n\n") if line.startswith(b"data: ")] for _, body, _ in answers]
    assert all(one == frames[0] and one[-1] == b"data: [DONE]" for one in frames)
    assert len({task_id for _, _, task_id in answers}) == 1
    assert site.arrivals("stream") == 1


async def test_another_body_is_refused_and_is_no_task(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        _, _, first = await put(session, site.urls[0], "other")
        for mode in ("callback", "blocking", "streaming"):
            code, body, _ = await put(session, site.urls[1], "other", mode=mode, text="something else")
            envelope = json.loads(body)
            assert (code, envelope["code"], envelope["field"]) == (422, 422, "Idempotency-Key")
            assert first in envelope["message"]
        await ended(session, site, first)
    assert site.arrivals("other") == 1


async def test_a_client_with_a_key_may_leave_and_come_again(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        leaving = asyncio.create_task(put(session, site.urls[0], "leave", mode="blocking", latency_ms=1500))
        await eventually_async(lambda: site.arrivals("leave"), what="the call")
        leaving.cancel()
        code, body, _ = await put(session, site.urls[1], "leave", mode="blocking", latency_ms=1500)
    assert (code, "choices" in json.loads(body)) == (200, True)
    assert site.arrivals("leave") == 1


async def test_keys_outlive_the_scheduler_and_the_ingress(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        _, _, first = await put(session, site.urls[0], "restart", latency_ms=300)
        site.streams.kill()
        site.ingresses[0].kill()
        site.streams.start()
        site.ingresses[0].start()
        give_up = time.monotonic() + 40
        while (answer := await put(session, site.urls[1], "restart", latency_ms=300))[0] == 503:
            assert time.monotonic() < give_up, "while nobody judges, the request may be sent again"
        assert (answer[0], answer[2]) == (200, first)
        await until_ready(site.urls[0])
        assert (await put(session, site.urls[0], "restart", latency_ms=300))[2] == first
        await ended(session, site, first)
    assert site.arrivals("restart") == 1
