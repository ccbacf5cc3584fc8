"""Queues on the real roles: a pause holds, a purge ends everything that waits once, a concurrency is kept."""

from __future__ import annotations

import asyncio

from tests.integration.operations.conftest import LONG_S, Site
from tests.support.waiting import eventually_async


async def test_a_paused_queue_reaches_no_upstream_until_it_is_resumed(site: Site) -> None:
    await site.run("queues", "register", "halted", "--endpoint", "/v1/chat/completions")
    await site.run("queues", "pause", "halted")
    ids = await site.put("halted", 20) + await site.put("halted", 1, level=1)
    online, offline = ids[:-1], ids[-1:]
    await site.reached(online, "queued")
    await site.reached(offline, "queued", 1)
    await site.goes_through()
    site.stop("dispatcher")
    site.start("dispatcher")
    await site.goes_through()
    await site.goes_through(1)
    assert (site.arrivals("halted"), site.states(online)) == (0, {"queued"})
    [shown] = [one for one in await site.asked("queues", "list") if one["name"] == "halted"]
    assert (shown["paused"], shown["waiting"]) == (True, {"online": 20, "offline": 1})
    await site.run("queues", "resume", "halted")
    await eventually_async(lambda: site.arrivals("halted"), within_s=LONG_S, what="the first call")
    await site.reached(online, "completed")
    await site.reached(offline, "completed", 1)
    assert site.arrivals("halted") == 21


async def test_a_purge_ends_a_thousand_waiting_tasks_once_each_and_nothing_else(site: Site) -> None:
    await site.run("queues", "register", "flood", "--paused", "--retention", "600")
    ids = await site.put("flood", 1_000, level=1)
    kept = await site.put("flood", 3)
    told = await site.asked("queues", "purge", "flood", "--level", "offline", "--wait", "60", "--yes")
    assert (told["purged"], told["left"], told["done"]) == (1_000, 0, True)
    await site.reached(ids, "cancelled", 1)
    results = site.probes[1].results
    await eventually_async(lambda: all(results[one] for one in ids), within_s=LONG_S, what="1,000 results")
    assert {len(results[one]) for one in ids} == {1}
    assert {(results[one][0]["error_code"], results[one][0]["error_message"]) for one in ids} == {
        ("cancelled", "purged")
    }
    row = site.probes[1].rows[ids[0]]
    assert row is not None
    assert row["retention_ms"] == 600_000, "what the queue says, for the tasks named none"
    assert site.states(kept) == {"queued"}
    await site.run("queues", "resume", "flood")
    after = await site.put("flood", 2, level=1)
    await site.reached(kept, "completed")
    await site.reached(after, "completed", 1)
    assert site.arrivals("flood") == 5, "of what was purged nothing reaches the model server"


async def test_a_queue_has_as_many_calls_at_once_as_it_may(site: Site) -> None:
    await site.run("queues", "register", "narrow", "--concurrency", "2")
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, site.simulator.stats.current)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    ids = await site.put("narrow", 10, latency_ms=200)
    late = await site.put("narrow", 4, level=1, latency_ms=200)
    await site.reached(ids, "completed")
    await site.reached(late, "completed", 1)
    assert most == 2
    most = 0
    await site.run("queues", "set", "narrow", "--concurrency", "0")
    await site.reached(await site.put("narrow", 10, latency_ms=1_000), "completed")
    watching.cancel()
    assert most > 2


async def test_what_cannot_be_done_is_said(site: Site) -> None:
    await site.run("queues", "register", "wide", "--width", "2")
    taken = await site.run("queues", "register", "wide", code=1)
    assert "queue wide is registered already" in taken.stderr
    assert "width only grows" in (await site.run("queues", "set", "wide", "--width", "1", code=1)).stderr
    assert "there is no queue nothing" in (await site.run("queues", "pause", "nothing", code=1)).stderr
    refused = await site.run("queues", "list", "--api-key", "sk-acme", code=1)
    assert "needs a key with the scope admin" in refused.stderr
