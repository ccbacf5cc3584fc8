"""What pull workers hold while the scheduler is away."""

from __future__ import annotations

import asyncio

from tests.support.pull_workers import ANSWER, PullWorkers
from tests.support.site import Site


async def test_a_lease_outlives_its_scheduler(site: Site) -> None:
    workers = PullWorkers(site)
    queue = await workers.queue()
    ids = await workers.put_many(queue, 2)
    [held] = await workers.take_some(queue, size=1, process_timeout=600)
    [lost] = await workers.take_some(queue, size=1, process_timeout=2)
    site.roles["online"].kill()
    site.roles["online"].start()
    [again] = await workers.take_some(queue, size=5, process_timeout=600)
    assert (again["task_id"], again["attempt"]) == (lost["task_id"], 2)
    assert {held["task_id"], lost["task_id"]} == set(ids)
    await asyncio.gather(*(workers.complete(one, body=ANSWER) for one in ids))
    assert {(await workers.producer.ended(one))["status"] for one in ids} == {"succeeded"}
