"""Async tasks over two ingresses, a scheduler of each lane and a dispatcher: every look is the same everywhere."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from schemas import ids
from tests.integration.test_idempotency import until_ready
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import POLL_S

MINE, THEIRS = ({"authorization": f"Bearer {key}"} for key in ("key-of-mine", "key-of-theirs"))
TERMINAL = ("completed", "failed", "cancelled", "expired")
LOOKS = 300
Task = dict[str, Any]


class Site:
    """Two ingresses before everything else."""

    def __init__(self, urls: list[str], ingresses: list[Role], folder: Path, session: aiohttp.ClientSession) -> None:
        self.urls, self.ingresses, self.folder, self.session = urls, ingresses, folder, session

    async def submit(self, number: int = 0, *, queue: str = "default", **sim: Any) -> str:
        """Submit an async task to one of the ingresses; `x_` members become headers."""
        headers = {f"X-Headrace-{name[2:]}": str(sim.pop(name)) for name in list(sim) if name.startswith("x_")}
        body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "async": True, "sim": sim}
        async with self.session.post(
            f"{self.urls[number]}/v1/chat/completions",
            json=body,
            headers={**MINE, "X-Headrace-Queue": queue, **headers},
        ) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["id"])

    async def look(self, name: str, number: int = 0, *, wait_s: int = 0, headers: dict[str, str] = MINE) -> Task:
        """Look at a task, or at a page of them."""
        prefer = {"prefer": f"wait={wait_s}"} if wait_s else {}
        async with self.session.get(f"{self.urls[number]}/v1/tasks{name}", headers={**headers, **prefer}) as answer:
            assert answer.status == 200, await answer.text()
            found: Task = await answer.json()
            return found

    async def until(self, name: str, wanted: Callable[[Task], object], *, number: int = 0) -> Task:
        """Look again and again until a task is as wanted."""
        give_up = time.monotonic() + 40
        while not wanted(task := await self.look(f"/{name}", number)):
            assert time.monotonic() < give_up, task
            await asyncio.sleep(0.1)
        return task

    async def names(self, query: str = "", number: int = 0, headers: dict[str, str] = MINE) -> list[str]:
        """List the ids of a page."""
        return [one["id"] for one in (await self.look(query, number, headers=headers))["data"]]


@pytest.fixture(scope="module")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("async")
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka,
            folder,
            f"async-{time.time_ns()}.",
            upstream__urls=[simulator.url],
            streams__session_timeout_s=12,
            auth__api_keys=["key-of-mine", "key-of-theirs"],
            ingress__check_models=False,
        )
        await apply_topics(settings)
        ports = [free_port(), free_port()]
        with ExitStack() as stack:

            def role(name: str, *arguments: str) -> Role:
                return stack.enter_context(running(*arguments, env=env, log=folder / f"{name}.log"))

            role("streams", "streams")
            role("dispatcher", "dispatcher")
            ingresses = [role(f"ingress-{port}", "ingress", "--port", str(port)) for port in ports]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                await until_ready(url)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                yield Site(urls, ingresses, folder, session)


async def cancel(site: Site, name: str, number: int = 0) -> tuple[int, Task]:
    async with site.session.post(f"{site.urls[number]}/v1/tasks/{name}/cancel", headers=MINE) as answer:
        return answer.status, await answer.json()


async def test_a_long_poll_at_another_ingress_gets_the_result(site: Site) -> None:
    name = await site.submit(0, latency_ms=1_000)
    task = await asyncio.wait_for(site.look(f"/{name}", 1, wait_s=60), 50)
    assert (task["status"], task["progress"], task["id"]) == ("completed", 100, name)
    assert task["result"]["object"] == "chat.completion"
    assert task["usage"]["output_tokens"] == task["result"]["usage"]["completion_tokens"]
    assert task["created_at"] <= task["started_at"] <= task["completed_at"] <= task["updated_at"] < task["expires_at"]


async def test_many_long_polls_of_one_task_end_together(site: Site) -> None:
    name = await site.submit(0, latency_ms=60_000)
    await site.until(name, lambda task: task["status"] == "processing")
    looking = [asyncio.create_task(site.look(f"/{name}", number % 2, wait_s=60)) for number in range(LOOKS)]
    for number in (0, 1):  # while they wait, others are served
        await asyncio.wait_for(site.look("", number), 20)
    assert not any(task.done() for task in looking)
    await cancel(site, name)
    found = await asyncio.wait_for(asyncio.gather(*looking), 50)
    assert {task["status"] for task in found} == {"cancelled"}


async def test_a_cancel_shows_the_task_and_comes_only_once(site: Site) -> None:
    name = await site.submit(0, latency_ms=60_000)
    await site.until(name, lambda task: task["status"] == "processing", number=1)
    status, task = await cancel(site, name, 1)
    assert (status, task["id"]) == (200, name)
    ended = await site.until(name, lambda task: task["status"] in TERMINAL)
    assert ended["status"] == "cancelled"
    assert ended["cancelled_at"]
    status, refused = await cancel(site, name)
    assert (status, refused["error"]["code"]) == (400, "task_not_cancellable")


async def test_the_list_is_the_same_everywhere_and_ones_own(site: Site) -> None:
    mine = [await site.submit(number % 2, queue="listed") for number in range(7)]
    for number in (0, 1):
        pages, query = [], "?queue=listed&limit=3"
        while True:
            page = await until_listed(site, query, number) if not pages else await site.look(query, number)
            pages.append([one["id"] for one in page["data"]])
            if not page["has_more"]:
                break
            query = f"?queue=listed&limit=3&after={page['next_cursor']}"
        assert [len(page) for page in pages] == [3, 3, 1]
        assert list(chain.from_iterable(pages)) == mine[::-1]
        assert await site.names("?queue=listed", number, THEIRS) == []
    first = await site.until(mine[0], lambda task: task["status"] == "completed")
    assert mine[0] in await site.names("?queue=listed&status=completed")
    assert mine[0] not in await site.names(f"?queue=listed&created_before={first['created_at']}")


async def until_listed(site: Site, query: str, number: int) -> Task:
    """Return a first page that tells of more: another ingress knows a task some milliseconds later."""
    give_up = time.monotonic() + 20
    while True:
        page = await site.look(query, number)
        everything = await site.names("?queue=listed&limit=100", number)
        if len(everything) == 7:
            return page if page["has_more"] else await site.look(query, number)
        assert time.monotonic() < give_up, everything
        await asyncio.sleep(0.05)


async def test_a_new_task_is_the_first_of_the_list_at_once_here_and_soon_everywhere(site: Site) -> None:
    for number in range(6):
        name = await site.submit(number % 2, queue="fresh")
        assert await site.names("?queue=fresh&limit=1", number % 2) == [name]
        give_up = time.monotonic() + 20
        while await site.names("?queue=fresh&limit=1", 1 - number % 2) != [name]:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.05)


async def test_an_offline_task_is_a_task_like_any_other(site: Site) -> None:
    name = await site.submit(0, x_Level=1, queue="offline")
    task = await asyncio.wait_for(site.look(f"/{name}", 1, wait_s=60), 50)
    assert (task["status"], task["level"]) == ("completed", 1)
    assert await site.names("?queue=offline&level=1") == [name]
    assert await site.names("?queue=offline&level=0") == []


async def test_a_result_expires_end_to_end(site: Site) -> None:
    name = await site.submit(0, **{"x_Result-Retention": 1})
    task = await site.until(name, lambda task: task["status"] == "expired", number=1)
    assert "result" not in task
    assert task["completed_at"] <= task["expired_at"]
    assert name in await site.names("?status=expired")


async def test_a_deadline_that_passes_is_a_failure(site: Site) -> None:
    name = await site.submit(0, x_Timeout=2, latency_ms=60_000)
    task = await asyncio.wait_for(site.look(f"/{name}", 1, wait_s=60), 50)
    assert (task["status"], task["error_code"]) == ("failed", "timeout")
    assert task["failed_at"]


async def test_the_progress_of_a_stream_grows(site: Site) -> None:
    sim = {"tokens": 40, "token_ms": 150}
    body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 40}
    seen: list[int] = []
    async with site.session.post(
        f"{site.urls[0]}/v1/chat/completions", json={**body, "sim": sim}, headers=MINE
    ) as stream:
        assert stream.status == 200
        name = ids.parse(stream.headers["x-task-id"]).task()
        reading = asyncio.create_task(stream.read())
        while not reading.done():
            task = await site.look(f"/{name}", 1)
            if task["status"] == "processing":
                seen.append(task["progress"])
            await asyncio.sleep(0.1)
        assert (await reading).rstrip().endswith(b"data: [DONE]")
    assert seen == sorted(seen)
    assert len({percent for percent in seen if 0 < percent < 100}) >= 2, seen
    task = await site.until(name, lambda task: task["status"] == "completed")
    assert task["progress"] == 100
    assert task["result_content_type"].startswith("text/event-stream")


async def test_a_stopping_ingress_answers_and_a_new_one_builds_the_same_list(site: Site) -> None:
    name = await site.submit(0, latency_ms=60_000)
    await site.until(name, lambda task: task["status"] == "processing", number=1)
    for _ in range(3):
        await site.submit(0, latency_ms=60_000)
    before = await site.names("?limit=100")
    assert len(before) > 3
    looking = asyncio.create_task(site.look(f"/{name}", 1, wait_s=60))
    async with asyncio.timeout(30):  # the other's read model may be some moments behind
        while await site.names("?limit=100", 1) != before:  # noqa: ASYNC110 - only HTTP tells
            await asyncio.sleep(POLL_S)
    for _ in range(3):  # each takes longer than the way to the wait
        assert await site.names("?limit=100", 1) == before
    for ingress in site.ingresses:
        assert await asyncio.to_thread(ingress.stop) == 0
    assert (await asyncio.wait_for(looking, 10))["status"] == "processing"
    stores = list(site.folder.glob("ingress/*/view"))
    assert len(stores) == 2
    for store in stores:
        shutil.rmtree(store)
    for ingress in site.ingresses:
        ingress.start()
    for number, url in enumerate(site.urls):
        await until_ready(url)
        assert await site.names("?limit=100", number) == before
    await cancel(site, name)
