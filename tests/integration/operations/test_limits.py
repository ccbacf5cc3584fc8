"""Limits on the real roles: a full queue refuses until it drains, and a tenant writes no more to Kafka than it may."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
from confluent_kafka import Producer

from tests.integration.operations.conftest import KEYS, LONG_S, Site
from tests.integration.test_idempotency import until_ready
from tests.support.ports import free_port
from tests.support.roles import running
from tests.support.waiting import eventually_async

MOST = 5
EACH = 20
SIM = {"model": "sim", "messages": [{"role": "user", "content": "x"}]}
ENDPOINT = "/v1/chat/completions"


async def put(url: str, queue: str) -> tuple[int, str, int]:
    """Put one task: status, its id or why not, and when to come again."""
    body = {"queue": queue, "endpoint": ENDPOINT, "data": {**SIM, "sim": {"key": queue}}}
    headers = {"authorization": "Bearer sk-acme"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/queue/put", json=body) as answer,
    ):
        told = await answer.json()
        said = told["data"] if answer.status == 200 else told["message"]
        return answer.status, said, int(answer.headers.get("retry-after", "0"))


async def test_a_full_queue_refuses_at_every_ingress_until_it_drains(site: Site, tmp_path: Path) -> None:
    await site.run("queues", "register", "full", "--max-waiting", str(MOST), "--paused")
    port = free_port()
    with running("ingress", "--port", str(port), env=site._env, log=tmp_path / "second.log") as second:
        urls = [site.url, f"http://127.0.0.1:{port}"]
        await until_ready(urls[1])
        told = await asyncio.gather(*(put(site.url, "full") for _ in range(3 * MOST)))
        ids = [said for status, said, _ in told if status == 200]
        assert sorted(status for status, *_ in told) == [200] * MOST + [429] * (2 * MOST)
        full = f"queue full is full: {MOST} online tasks wait, and its limit is {MOST}; nothing was accepted"
        assert {said for status, said, _ in told if status == 429} == {f"{full}, try again in 60 s"}
        assert {wait_s for status, _, wait_s in told if status == 429} == {60}, "nothing drains"
        for one in ids:  # once it shows them it has counted them
            await site.run("tasks", "show", one, "--url", urls[1])
        assert (await put(urls[1], "full"))[0] == 429
        second.kill()
        second.start()
        await until_ready(urls[1])
        assert (await put(urls[1], "full"))[0] == 429, "a restart forgets nothing"
        shown = await site.asked("queues", "show", "full")
        assert (shown["max_waiting"], shown["waiting"]) == (MOST, {"online": MOST, "offline": 0})
        found = {one["code"]: one for one in (await site.asked("doctor", code=1))["data"]}
        assert f"{MOST} of {MOST} wait" in found["queue_full"]["what"]
        await site.run("queues", "resume", "full")
        await site.reached(ids, "completed")
        for url in urls:
            await accepted(url)
    assert site.arrivals("full") >= MOST


async def test_a_queue_that_workers_serve_has_room_again_when_they_take(site: Site) -> None:
    headers = {"authorization": "Bearer sk-acme"}
    async with aiohttp.ClientSession(site.url, headers=headers) as session:
        body = {"queue": "pulled", "endpoint": ENDPOINT, "served_by": "workers"}
        async with session.post("/v1/queue/register", json=body) as answer:
            assert answer.status == 200, await answer.text()
        assert (await site.asked("queues", "set", "pulled", "--max-waiting", "2"))["max_waiting"] == 2
        ids = [(await put(site.url, "pulled"))[1] for _ in range(2)]
        assert (await put(site.url, "pulled"))[0] == 429
        await site.reached(ids, "queued")
        shown = await site.asked("queues", "show", "pulled")
        assert (shown["max_waiting"], shown["waiting"]) == (2, {"online": 2, "offline": 0})
        taken: list[str] = []
        while not taken:
            async with session.post("/v1/queue/take", json={"queues": ["pulled:0"], "size": 1}) as answer:
                taken += [one["task_id"] for tasks in (await answer.json()).values() for one in tasks]
        assert (await put(site.url, "pulled"))[0] == 200, "what was taken is in the row before it is handed out"
        assert (await put(site.url, "pulled"))[0] == 429
        await site.run("queues", "set", "pulled", "--max-waiting", "0")
        assert (await put(site.url, "pulled"))[0] == 200


async def accepted(url: str) -> None:
    give_up = asyncio.get_running_loop().time() + LONG_S
    while True:
        status, said, wait_s = await put(url, "full")
        if status == 200:
            return
        assert (status, 1 <= wait_s <= 300) == (429, True), said
        assert asyncio.get_running_loop().time() < give_up, said
        await asyncio.sleep(0.05)


async def test_a_tenant_above_its_limit_of_the_kafka_door_disturbs_nobody(site: Site) -> None:
    await site.run("queues", "register", "door")
    path = site.settings.auth.keys_file
    assert path is not None
    path.write_text(f"{KEYS}\n[tenants.acme]\ntasks_per_minute = {MOST}\n")
    try:
        await asyncio.to_thread(write, site)
        rows, offline = site.probes[1].rows, site.settings.topic("tasks.offline")

        def states(owner: str) -> list[str]:
            mine = [row for row in rows.values() if row and row["queue"] == "door" and row["owner"] == owner]
            return [row["state"] for row in mine]

        await eventually_async(lambda: states("other") == ["completed"] * EACH, within_s=LONG_S, what="the neighbours")
        letters: list[Any] = []

        async def all_judged() -> bool:
            found = await site.asked("dead-letters", "list", "--reason", "tasks per minute", "--topic", offline)
            letters[:] = found
            return len(found) + len(states("acme")) == EACH

        while True:
            if await all_judged():
                break
            await asyncio.sleep(0.1)
        assert MOST <= len(states("acme")) <= MOST + 3, "one comes back every 12 s"
        assert {(one["field"], one["owner"]) for one in letters} == {("x-owner", "acme")}
        path.write_text(KEYS)
        while len(states("acme")) < EACH:  # the file is looked at once a second, so some may be refused again
            await site.run("dead-letters", "redrive", "--reason", "tasks per minute")
            await asyncio.sleep(0.2)
        await eventually_async(lambda: states("acme") == ["completed"] * EACH, within_s=LONG_S, what="the others")
    finally:
        path.write_text(KEYS)


def write(site: Site) -> None:
    producer = Producer({"bootstrap.servers": site.settings.kafka.bootstrap, "log_level": 0})
    task = json.dumps({"queue": "door", "endpoint": ENDPOINT, "data": {**SIM, "sim": {"key": "door"}}})
    for _ in range(EACH):
        for owner in ("acme", "other"):
            producer.produce(site.settings.topic("tasks.offline"), task, headers=[("x-owner", owner.encode())])
    assert producer.flush(60) == 0
