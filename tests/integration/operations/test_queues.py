"""Queues on the real roles: a pause holds, a purge ends everything that waits once, a concurrency is kept."""

from __future__ import annotations

import asyncio

from tests.support.operators import Operators
from tests.support.waiting import eventually_async


async def test_a_paused_queue_reaches_no_upstream_until_it_is_resumed(operators: Operators) -> None:
    await operators.run("queues", "register", "halted", "--endpoint", "/v1/chat/completions")
    await operators.run("queues", "pause", "halted")
    ids = await operators.put("halted", 20) + await operators.put("halted", 1, level=1)
    online, offline = ids[:-1], ids[-1:]
    await operators.reached(online, "queued")
    await operators.reached(offline, "queued")
    await operators.goes_through()
    await operators.site.stop("dispatcher")
    operators.site.roles["dispatcher"].start()
    await operators.goes_through()
    await operators.goes_through(1)
    assert (operators.site.arrivals("halted"), operators.states(online)) == (0, {"queued"})
    [shown] = [one for one in await operators.ask("queues", "list") if one["name"] == "halted"]
    assert (shown["paused"], shown["waiting"]) == (True, {"online": 20, "offline": 1})
    await operators.run("queues", "resume", "halted")
    await eventually_async(lambda: operators.site.arrivals("halted"), what="the first call")
    await operators.reached(online, "completed")
    await operators.reached(offline, "completed")
    assert operators.site.arrivals("halted") == 21


async def test_a_purge_ends_a_thousand_waiting_tasks_once_each_and_nothing_else(operators: Operators) -> None:
    await operators.run("queues", "register", "flood", "--paused", "--retention", "600")
    ids = await operators.put("flood", 1_000, level=1)
    kept = await operators.put("flood", 3)
    told = await operators.ask("queues", "purge", "flood", "--level", "offline", "--wait", "60", "--yes")
    assert (told["purged"], told["left"], told["done"]) == (1_000, 0, True)
    await operators.reached(ids, "cancelled")
    results = operators.log.results
    await eventually_async(lambda: all(results[one] for one in ids), what="1,000 results")
    assert {len(results[one]) for one in ids} == {1}
    assert {(results[one][0]["error_code"], results[one][0]["error_message"]) for one in ids} == {
        ("cancelled", "purged")
    }
    row = operators.log.rows[ids[0]]
    assert row["retention_ms"] == 600_000, "what the queue says, for the tasks named none"
    assert operators.states(kept) == {"queued"}
    await operators.run("queues", "resume", "flood")
    after = await operators.put("flood", 2, level=1)
    await operators.reached(kept, "completed")
    await operators.reached(after, "completed")
    assert operators.site.arrivals("flood") == 5, "of what was purged nothing reaches the model server"


async def test_a_queue_has_as_many_calls_at_once_as_it_may(operators: Operators) -> None:
    await operators.run("queues", "register", "narrow", "--concurrency", "2")
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, operators.site.running("narrow"))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    ids = await operators.put("narrow", 10, latency_ms=200)
    late = await operators.put("narrow", 4, level=1, latency_ms=200)
    await operators.reached(ids, "completed")
    await operators.reached(late, "completed")
    assert most == 2
    most = 0
    await operators.run("queues", "set", "narrow", "--concurrency", "0")
    await operators.reached(await operators.put("narrow", 10, latency_ms=1_000), "completed")
    watching.cancel()
    assert most > 2


async def test_impossible_requests_are_reported(operators: Operators) -> None:
    await operators.run("queues", "register", "wide", "--width", "2")
    taken = await operators.run("queues", "register", "wide", code=1)
    assert "queue wide is registered already" in taken.stderr
    assert "width only grows" in (await operators.run("queues", "set", "wide", "--width", "1", code=1)).stderr
    assert "there is no queue nothing" in (await operators.run("queues", "pause", "nothing", code=1)).stderr
    refused = await operators.run("queues", "list", "--api-key", "sk-acme", code=1)
    assert "needs a key with the scope admin" in refused.stderr
