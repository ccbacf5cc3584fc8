"""Async tasks over two ingresses, a scheduler of each level and a dispatcher: every look is the same everywhere."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from schemas import ids
from tests.support.async_tasks import AsyncTasks
from tests.support.site import CHAT, Site
from tests.support.waiting import until

TERMINAL = ("completed", "failed", "cancelled", "expired")
LOOKS = 300
WAIT_S = 60
WITHIN_S = 180
"""Below the longest wait, so that what is awaited came by itself."""


@pytest.fixture(scope="module")
async def tasks(site: Site) -> AsyncTasks:
    return AsyncTasks(site, "async")


async def test_a_long_poll_at_another_ingress_gets_the_result(tasks: AsyncTasks) -> None:
    name = await tasks.submit_async(latency_ms=1_000)
    task = await asyncio.wait_for(tasks.look(f"/{name}", at=1, wait_s=WAIT_S), WITHIN_S)
    assert (task["status"], task["progress"], task["id"]) == ("completed", 100, name)
    assert task["result"]["object"] == "chat.completion"
    assert task["usage"]["output_tokens"] == task["result"]["usage"]["completion_tokens"]
    assert task["created_at"] <= task["started_at"] <= task["completed_at"] <= task["updated_at"] < task["expires_at"]


async def test_many_long_polls_of_one_task_end_together(tasks: AsyncTasks) -> None:
    name = await tasks.submit_async(latency_ms=120_000)
    await tasks.until(name, lambda task: task["status"] == "processing")
    looking = [asyncio.create_task(tasks.look(f"/{name}", at=n, wait_s=WAIT_S)) for n in range(LOOKS)]
    for number in (0, 1):  # while they wait, others are served
        await asyncio.wait_for(tasks.look("", at=number), WITHIN_S)
    assert not any(task.done() for task in looking)
    await tasks.cancel_async(name)
    found = await asyncio.wait_for(asyncio.gather(*looking), WITHIN_S)
    assert {task["status"] for task in found} == {"cancelled"}


async def test_a_cancel_shows_the_task_and_comes_only_once(tasks: AsyncTasks) -> None:
    name = await tasks.submit_async(latency_ms=60_000)
    await tasks.until(name, lambda task: task["status"] == "processing", at=1)
    status, task = await tasks.cancel_async(name, at=1)
    assert (status, task["id"]) == (200, name)
    ended = await tasks.until(name, lambda task: task["status"] in TERMINAL)
    assert ended["status"] == "cancelled"
    assert ended["cancelled_at"]
    status, refused = await tasks.cancel_async(name)
    assert (status, refused["error"]["code"]) == (400, "task_not_cancellable")


async def test_the_list_is_the_same_everywhere_and_ones_own(site: Site, tasks: AsyncTasks) -> None:
    stranger = AsyncTasks(site, "strangers")
    mine = [await tasks.submit_async(at=number, queue="listed") for number in range(7)]
    for at in (0, 1):
        # Another ingress knows a task some milliseconds later.
        await until(lambda at=at: tasks.names("?queue=listed&limit=100", at=at), lambda found: len(found) == 7)
        pages, query = [], "?queue=listed&limit=3"
        while True:
            page = await tasks.look(query, at=at)
            pages.append([one["id"] for one in page["data"]])
            if not page["has_more"]:
                break
            query = f"?queue=listed&limit=3&after={page['next_cursor']}"
        assert [len(page) for page in pages] == [3, 3, 1]
        assert list(chain.from_iterable(pages)) == mine[::-1]
        assert await stranger.names("?queue=listed", at=at) == []
    first = await tasks.until(mine[0], lambda task: task["status"] == "completed")
    assert mine[0] in await tasks.names("?queue=listed&status=completed")
    assert mine[0] not in await tasks.names(f"?queue=listed&created_before={first['created_at']}")


async def test_a_new_task_is_the_first_of_the_list_at_once_here_and_soon_everywhere(tasks: AsyncTasks) -> None:
    for number in range(6):
        name = await tasks.submit_async(at=number, queue="fresh")
        assert await tasks.names("?queue=fresh&limit=1", at=number) == [name]
        other = number + 1
        await until(
            lambda other=other: tasks.names("?queue=fresh&limit=1", at=other), lambda found, name=name: found == [name]
        )


async def test_an_offline_task_is_a_task_like_any_other(tasks: AsyncTasks) -> None:
    name = await tasks.submit_async(x_Level=1, queue="offline")
    task = await asyncio.wait_for(tasks.look(f"/{name}", at=1, wait_s=WAIT_S), WITHIN_S)
    assert (task["status"], task["level"]) == ("completed", 1)
    assert await tasks.names("?queue=offline&level=1") == [name]
    assert await tasks.names("?queue=offline&level=0") == []


async def test_a_result_expires_end_to_end(tasks: AsyncTasks) -> None:
    name = await tasks.submit_async(**{"x_Result-Retention": 1})
    task = await tasks.until(name, lambda task: task["status"] == "expired", at=1)
    assert "result" not in task
    assert task["completed_at"] <= task["expired_at"]
    assert name in await tasks.names("?status=expired")


async def test_a_deadline_that_passes_is_a_failure(tasks: AsyncTasks) -> None:
    name = await tasks.submit_async(x_Timeout=2, latency_ms=60_000)
    task = await asyncio.wait_for(tasks.look(f"/{name}", at=1, wait_s=WAIT_S), WITHIN_S)
    assert (task["status"], task["error_code"]) == ("failed", "timeout")
    assert task["failed_at"]


async def test_the_progress_of_a_stream_grows(tasks: AsyncTasks) -> None:
    sim = {"tokens": 40, "token_ms": 100}
    body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 40}
    seen: list[int] = []
    async with tasks.call("POST", CHAT, json={**body, "sim": sim}) as stream:
        assert stream.status == 200
        name = ids.parse(stream.headers["x-task-id"]).task()
        reading = asyncio.create_task(stream.read())
        while not reading.done():
            task = await tasks.look(f"/{name}", at=1)
            if task["status"] == "processing":
                seen.append(task["progress"])
            await asyncio.sleep(0.05)
        assert (await reading).rstrip().endswith(b"data: [DONE]")
    assert seen == sorted(seen)
    assert len({percent for percent in seen if 0 < percent < 100}) >= 2, seen
    task = await tasks.until(name, lambda task: task["status"] == "completed")
    assert task["progress"] == 100
    assert task["result_content_type"].startswith("text/event-stream")
