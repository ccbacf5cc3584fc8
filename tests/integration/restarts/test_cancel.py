"""Cancels while roles are away: they count when these come back, and nothing that was cancelled runs."""

from __future__ import annotations

import asyncio

from tests.support.site import Client, Site
from tests.support.task_log import TaskLog
from tests.support.waiting import eventually_async


async def test_what_waits_never_reaches_the_model_server(site: Site, log: TaskLog) -> None:
    client = Client(site, "cancel")
    site.roles["dispatcher"].kill()
    names = [f"cancelled-{number}" for number in range(30)]
    ids = [await client.submit(key=name) for name in names]
    for number, task_id in enumerate(ids):
        assert await client.cancel(task_id, at=number) == (202, task_id)
        assert (await client.show(task_id, at=number))["status"] == "cancelled"
    site.roles["dispatcher"].start()
    await log.all_read(client)
    assert [site.arrivals(name) for name in names] == [0] * 30
    assert {tuple(log.outcomes(task_id)) for task_id in ids} == {("cancelled",)}


async def test_cancel_works_after_restarts_of_streams_and_dispatcher(site: Site, log: TaskLog) -> None:
    client = Client(site, "cancel")
    scheduler, dispatcher = site.roles["online"], site.roles["dispatcher"]
    task_id = await client.submit(key="streams-restart", fault="hang")
    await eventually_async(lambda: site.arrivals("streams-restart"))
    scheduler.kill()
    asking = asyncio.create_task(client.cancel(task_id, at=1))
    scheduler.start()
    assert await asking == (202, task_id)
    await eventually_async(lambda: site.closed_ms("streams-restart"), what="the closing of the call")
    orphan = await client.submit(key="dispatcher-restart", fault="hang")
    await eventually_async(lambda: log.state(orphan) == "processing")
    dispatcher.kill()
    assert await client.cancel(orphan, at=1) == (202, orphan)
    dispatcher.start()
    await log.all_read(client)
    assert (log.outcomes(task_id), log.outcomes(orphan)) == (["cancelled"], ["cancelled"])
    assert (site.arrivals("streams-restart"), site.arrivals("dispatcher-restart")) == (1, 1)
