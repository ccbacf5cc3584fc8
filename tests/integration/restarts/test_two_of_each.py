"""Two of every role against one Kafka: work is shared, answers cross processes, and either of a pair may go."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.support.site import Client, Site

SECOND = ("online-2", "offline-2", "dispatcher-2")


@pytest.fixture(scope="module")
async def client(site: Site) -> AsyncIterator[Client]:
    async with site.more(*SECOND):
        yield Client(site, "pair")


async def test_answers_find_the_ingress_that_waits(site: Site, client: Client) -> None:
    calls = [
        client.put(at=n, mode="blocking", text=f"question {n}", latency_ms=20, key=f"waits-{n}") for n in range(200)
    ]
    answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}
    texts = [answer.json["choices"][0]["message"]["content"] for answer in answers]
    assert len(set(texts)) == 200
    assert {site.arrivals(f"waits-{n}") for n in range(200)} == {1}


async def test_a_task_put_here_is_seen_there_at_once(client: Client) -> None:
    for number in range(20):
        task_id = await client.submit(at=number)
        assert (await client.show(task_id, at=number + 1))["task_id"] == task_id


async def test_ids_of_two_ingresses_never_meet(client: Client) -> None:
    assert len(set(await asyncio.gather(*(client.submit(at=n) for n in range(600))))) == 600


async def test_streams_cross_processes(client: Client) -> None:
    answers = await asyncio.gather(*(client.put(at=n, mode="streaming", tokens=12, token_ms=10) for n in range(20)))
    for answer in answers:
        assert answer.status == 200
        *chunks, last = answer.frames
        assert last == b"[DONE]"
        words = [json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in chunks]
        assert len("".join(words).split()) == 12


@pytest.mark.parametrize("roles", [("online", "online-2", "offline", "offline-2"), ("dispatcher", "dispatcher-2")])
async def test_a_rolling_restart_under_load_runs_nothing_twice(
    site: Site, client: Client, roles: tuple[str, ...]
) -> None:
    stop = asyncio.Event()
    seen: Counter[int] = Counter()
    keys: list[str] = []

    async def load(lane: int) -> None:
        while not stop.is_set():
            key = f"{roles[0]}-{lane}-{len(keys)}"
            keys.append(key)
            answer = await client.put(at=lane, mode="blocking", latency_ms=60, key=key)
            seen[answer.status] += 1

    async with asyncio.TaskGroup() as group:
        for lane in range(8):
            group.create_task(load(lane))
        for name in roles:
            await site.stop(name)
            site.roles[name].start()
            await site.ready()
        stop.set()
    assert set(seen) == {200}
    assert {site.arrivals(key) for key in keys} == {1}


async def test_who_was_given_the_outcome_finds_it(client: Client) -> None:
    for number in range(20):
        answer = await client.put(at=0, mode="blocking" if number % 2 else "streaming")
        assert answer.status == 200
        found = await client.show(answer.task_id, at=0)
        assert (found["status"], found["result"]["status_code"]) == ("succeeded", 200)
