"""Cancel over HTTP through the real roles: what waits never runs, what runs is closed, and nothing follows."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time

import pytest

from tests.support.site import Client, Site
from tests.support.task_log import TaskLog
from tests.support.waiting import eventually_async, until

logger = logging.getLogger(__name__)

CANCELS = 200
AT_ONCE = 40
WITHIN_MS = 1_000


@pytest.fixture(scope="module")
async def client(site: Site) -> Client:
    return Client(site, "cancel")


async def slowest_call_ms(client: Client, over: asyncio.Event) -> float:
    """Make one call after the other until it is over, and return how long the slowest took.

    There is always one on its way, so it tells how long this machine stood still, or was busy with other things.
    """
    slowest = 0.0
    while not over.is_set():
        began = time.monotonic()
        assert (await client.put(mode="blocking")).status == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest * 1_000


async def test_what_runs_is_closed_within_a_second(site: Site, client: Client, log: TaskLog) -> None:
    waits: list[float] = []

    async def one(number: int) -> str:
        name = f"hang-{number}"
        task_id = await client.submit(at=number, key=name, fault="hang")
        await eventually_async(lambda: site.arrivals(name), what="the call")
        asked_ms, other = time.time_ns() / 1e6, number + 1
        assert await client.cancel(task_id, at=other) == (202, task_id)
        # At once, unless everything is slow: after a second the answer comes without the scheduler's decision.
        await until(lambda: client.show(task_id, at=other), lambda task: task["status"] == "cancelled")
        await eventually_async(lambda: site.closed_ms(name), what="the closing of the call")
        waits.append(site.closed_ms(name)[0] - asked_ms)
        return task_id

    assert (await client.put(mode="blocking")).status == 200  # the dispatcher serves the queue by now
    over, ids = asyncio.Event(), list[str]()
    slowest = asyncio.create_task(slowest_call_ms(client, over))
    for begin in range(0, CANCELS, AT_ONCE):
        ids += await asyncio.gather(*(one(number) for number in range(begin, begin + AT_ONCE)))
    over.set()
    await log.all_read(client)
    assert {tuple(log.outcomes(task_id)) for task_id in ids} == {("cancelled",)}
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    told = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {max(waits):.0f} ms; the slowest call took {await slowest:.0f} ms"
    logger.info("%d cancels: %s", CANCELS, told)
    # A second, and twice what this machine made any call wait: it may have stood still.
    assert p99 < WITHIN_MS + 2 * await slowest, told


async def test_a_cancel_right_after_the_put_counts_at_any_ingress(client: Client, log: TaskLog) -> None:
    async def one(number: int) -> str:
        task_id = await client.submit(at=number, latency_ms=60_000)
        assert await client.cancel(task_id, at=number + 1) == (202, task_id)
        return task_id

    ids = await asyncio.gather(*(one(number) for number in range(50)))
    await eventually_async(lambda: all(log.outcomes(task_id) for task_id in ids), what="50 outcomes")
    assert {tuple(log.outcomes(task_id)) for task_id in ids} == {("cancelled",)}


async def test_what_cannot_be_cancelled(site: Site, client: Client, log: TaskLog) -> None:
    stranger = Client(site, "strangers")
    task_id = await client.submit()
    await eventually_async(lambda: log.outcomes(task_id) == ["completed"])
    await eventually_async(lambda: log.state(task_id) == "completed")
    status, envelope = await client.cancel(task_id)
    assert (status, str(envelope).count("task_not_cancellable")) == (400, 1)
    running = await client.submit(fault="hang")
    assert (await stranger.cancel(running, at=1))[0] == 404
    assert (await client.cancel(task_id[:-6] + "999999", at=1))[0] == 404
    assert (await client.cancel("no-id", at=1))[0] == 404
    assert await client.cancel(running, at=1) == (202, running)


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
async def test_a_client_that_goes_away_cancels(site: Site, client: Client, mode: str) -> None:
    name = f"leaves-{mode}"
    behaviour = {"fault": "hang"} if mode == "blocking" else {"tokens": 500, "token_ms": 100}
    body = client.body(mode=mode, key=name, **behaviour)

    async def call() -> None:
        async with client.call("POST", "/v1/queue/put", json=body) as answer:
            await answer.read()

    asking = asyncio.create_task(call())
    await eventually_async(lambda: site.arrivals(name), what="the call")
    assert not asking.done()
    asking.cancel()
    await eventually_async(lambda: site.closed_ms(name), what="the closing of the call")
