"""An Idempotency-Key stands for its task whatever is restarted."""

from __future__ import annotations

from tests.support.site import Answer, Client, Site
from tests.support.waiting import until


async def test_keys_outlive_the_scheduler_and_the_ingress(site: Site) -> None:
    client = Client(site, "idempotency")

    async def put(at: int) -> Answer:
        return await client.put(at=at, headers={"Idempotency-Key": "restart"}, key="restart", latency_ms=300)

    first = (await put(0)).task_id
    for name in ("online", "ingress-0"):
        site.roles[name].kill()
    for name in ("online", "ingress-0"):
        site.roles[name].start()
    # While no scheduler decides, the request may be sent again.
    answer = await until(lambda: put(1), lambda one: one.status != 503)
    assert (answer.status, answer.task_id) == (200, first)
    await site.ready()
    assert (await put(0)).task_id == first
    assert (await client.ended(first))["status"] == "succeeded"
    assert site.arrivals("restart") == 1
