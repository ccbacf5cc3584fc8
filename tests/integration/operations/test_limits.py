"""Limits on the real roles: a full queue refuses until it drains, and a tenant writes no more to Kafka than it may."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple

from confluent_kafka import Producer

from core.settings.models import Settings
from tests.support.operators import KEYS, Operators
from tests.support.site import CHAT, Client
from tests.support.waiting import eventually_async, until

MOST = 5
EACH = 20
SIM = {"model": "sim", "messages": [{"role": "user", "content": "x"}]}


class Refused(NamedTuple):
    """Why a put was refused, and when to come again."""

    message: str
    wait_s: int


async def put(operators: Operators, queue: str, *, at: int = 0) -> str | Refused:
    """Put one task and return its id, or why it was refused."""
    client = Client(operators.site, "acme", queue)
    async with client.call("POST", "/v1/queue/put", at=at, json=client.body(key=queue)) as answer:
        found = await answer.json()
        if answer.status == 200:
            return str(found["data"])
        assert answer.status == 429, found
        return Refused(found["message"], int(answer.headers["retry-after"]))


async def is_refused(operators: Operators, queue: str, *, at: int = 0) -> bool:
    return isinstance(await put(operators, queue, at=at), Refused)


async def test_a_full_queue_refuses_at_every_ingress_until_it_drains(operators: Operators) -> None:
    await operators.run("queues", "register", "full", "--max-waiting", str(MOST), "--paused")
    answers = await asyncio.gather(*(put(operators, "full") for _ in range(3 * MOST)))
    ids = [one for one in answers if isinstance(one, str)]
    refused = [one for one in answers if isinstance(one, Refused)]
    assert (len(ids), len(refused)) == (MOST, 2 * MOST)
    full = f"queue full is full: {MOST} online tasks wait, and its limit is {MOST}; nothing was accepted"
    assert set(refused) == {Refused(f"{full}, try again in 60 s", 60)}, "nothing drains"
    for one in ids:  # once the other ingress shows them it has counted them
        await operators.run("tasks", "show", one, "--url", operators.site.urls[1])
    assert await is_refused(operators, "full", at=1)
    await operators.site.restart("ingress-1")
    assert await is_refused(operators, "full", at=1), "a restart forgets nothing"
    shown = await operators.ask("queues", "show", "full")
    assert (shown["max_waiting"], shown["waiting"]) == (MOST, {"online": MOST, "offline": 0})
    found = {one["code"]: one for one in (await operators.ask("doctor", code=1))["data"]}
    assert f"{MOST} of {MOST} wait" in found["queue_full"]["what"]
    await operators.run("queues", "resume", "full")
    await operators.reached(ids, "completed")
    for at in (0, 1):
        answer = await until(lambda at=at: tried_again(operators, at), lambda one: isinstance(one, str))
        await operators.reached([str(answer)], "completed")
    assert operators.site.arrivals("full") >= MOST


async def tried_again(operators: Operators, at: int) -> str | Refused:
    """Put a task into the queue that drains; what is refused is told to come again soon."""
    answer = await put(operators, "full", at=at)
    assert isinstance(answer, str) or 1 <= answer.wait_s <= 300
    return answer


async def test_a_queue_that_workers_serve_has_room_again_when_they_take(operators: Operators) -> None:
    client = Client(operators.site, "acme", "pulled")
    body = {"queue": "pulled", "endpoint": CHAT, "served_by": "workers"}
    async with client.call("POST", "/v1/queue/register", json=body) as answer:
        assert answer.status == 200, await answer.text()
    assert (await operators.ask("queues", "set", "pulled", "--max-waiting", "2"))["max_waiting"] == 2
    ids = [str(await put(operators, "pulled")) for _ in range(2)]
    assert await is_refused(operators, "pulled")
    await operators.reached(ids, "queued")
    shown = await operators.ask("queues", "show", "pulled")
    assert (shown["max_waiting"], shown["waiting"]) == (2, {"online": 2, "offline": 0})

    async def take() -> list[str]:
        async with client.call("POST", "/v1/queue/take", json={"queues": ["pulled:0"], "size": 1}) as answer:
            return [one["task_id"] for tasks in (await answer.json()).values() for one in tasks]

    await until(take)
    assert not await is_refused(operators, "pulled"), "what was taken is in the row before it is handed out"
    assert await is_refused(operators, "pulled")
    await operators.run("queues", "set", "pulled", "--max-waiting", "0")
    assert not await is_refused(operators, "pulled")


async def test_a_tenant_above_its_direct_quota_affects_no_other(operators: Operators) -> None:
    await operators.run("queues", "register", "direct")
    path = operators.site.settings.auth.keys_file
    assert path is not None
    path.write_text(f"{KEYS}\n[tenants.acme]\ntasks_per_minute = {MOST}\n")
    offline = operators.site.settings.topic("tasks.offline")
    since_ms = time.time_ns() // 1_000_000
    try:
        await asyncio.to_thread(write, operators.site.settings)

        def states(owner: str) -> list[str]:
            return [row["state"] for row in operators.log.of_queue("direct") if row["owner"] == owner]

        async def refused() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await operators.ask(
                "dead-letters", "list", "--reason", "tasks per minute", "--topic", offline
            )
            return found

        await eventually_async(lambda: states("other") == ["completed"] * EACH, what="the neighbours")
        dead_letters = await until(refused, lambda found: len(found) + len(states("acme")) == EACH)
        passed_s = time.time_ns() / 1e9 - since_ms / 1e3
        assert MOST <= len(states("acme")) <= MOST + 1 + passed_s * MOST / 60, "one comes back every 12 s"
        assert {(one["field"], one["owner"]) for one in dead_letters} == {("x-owner", "acme")}
        path.write_text(KEYS)

        async def redriven() -> int:  # the file is looked at once a second, so some may be refused again
            await operators.run("dead-letters", "redrive", "--reason", "tasks per minute")
            return len(states("acme"))

        await until(redriven, lambda count: count == EACH, poll_s=0.2)
        await eventually_async(lambda: states("acme") == ["completed"] * EACH, what="the others")
    finally:
        path.write_text(KEYS)


def write(settings: Settings) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap, "log_level": 0})
    task = json.dumps({"queue": "direct", "endpoint": CHAT, "data": {**SIM, "sim": {"key": "direct"}}})
    for _ in range(EACH):
        for owner in ("acme", "other"):
            producer.produce(settings.topic("tasks.offline"), task, headers=[("x-owner", owner.encode())])
    assert producer.flush(60) == 0
