"""Looks at async tasks while every ingress is stopped and started anew."""

from __future__ import annotations

import asyncio
import shutil

from tests.support.async_tasks import AsyncTasks
from tests.support.site import Site
from tests.support.waiting import until

INGRESSES = ("ingress-0", "ingress-1")


async def test_a_stopping_ingress_answers_and_a_new_one_builds_the_same_list(site: Site) -> None:
    tasks = AsyncTasks(site, "async")
    name = await tasks.submit_async(latency_ms=120_000)
    await tasks.until(name, lambda task: task["status"] == "processing", at=1)
    for _ in range(3):
        await tasks.submit_async(latency_ms=120_000)
    before = await tasks.names("?limit=100")
    assert len(before) > 3
    looking = asyncio.create_task(tasks.look(f"/{name}", at=1, wait_s=60))
    # The other's read model may be some moments behind.
    await until(lambda: tasks.names("?limit=100", at=1), lambda found: found == before)
    for _ in range(3):  # each takes longer than the way to the wait
        assert await tasks.names("?limit=100", at=1) == before
    assert not looking.done()
    for ingress in INGRESSES:
        await site.stop(ingress)
    assert (await asyncio.wait_for(looking, 40))["status"] == "processing"
    stores = list(site.settings.data_dir.glob("ingress/*/view"))
    assert len(stores) == 2
    for store in stores:
        shutil.rmtree(store)
    for ingress in INGRESSES:
        site.roles[ingress].start()
    await site.ready()
    for at in (0, 1):
        assert await tasks.names("?limit=100", at=at) == before
    for one in before:
        await tasks.cancel_async(one)
