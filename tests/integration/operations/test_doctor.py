"""doctor names what was broken on purpose, through the ingress and, when that is down, from Kafka itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.operators import PLAIN, Operators
from tests.support.waiting import until

WITHIN_S = 120
"""What was broken before may need some seconds to be over, and each look takes up to ten."""


async def told(operators: Operators, *wanted: str, code: int = 1) -> dict[str, Any]:
    """Ask until just these problems are found."""

    async def look() -> dict[str, Any] | None:
        try:
            answer = await operators.ask("doctor", code=code)
        except AssertionError:  # it found something, or nothing, and that is yet to change
            return None
        assert all(one["next_step"] for one in answer["data"])
        return problems(answer)

    return await until(look, lambda found: found is not None and found.keys() == set(wanted), within_s=WITHIN_S) or {}


def problems(answer: dict[str, Any]) -> dict[str, Any]:
    return {one["code"]: one for one in answer["data"] if one["weight"] == "problem"}


@pytest.mark.timeout(900)
async def test_doctor_names_each_of_what_is_broken(operators: Operators) -> None:
    site = operators.site
    await operators.goes_through()
    assert await told(operators, code=0) == {}
    assert "Nothing is stuck." in (await operators.run("doctor")).stdout

    await operators.run("queues", "pause", PLAIN)
    ids = await operators.put(PLAIN, 3)
    found = await told(operators, "queue_paused")
    assert found["queue_paused"]["what"] == "queue plain is paused; 3 tasks wait"
    await operators.run("queues", "resume", PLAIN)
    await operators.reached(ids, "completed")

    await site.simulator.close()
    found = await told(operators, "upstream_down")
    assert f"{site.simulator.url} does not answer" in found["upstream_down"]["what"]
    await site.simulator.start()
    await operators.goes_through()

    await asyncio.gather(site.stop("dispatcher"), site.stop("ingress-1"))
    site.roles["offline"].kill()
    waiting = await operators.put(PLAIN, 2)
    # Beside the looks of the ingress that runs, one that asks the other, which does not.
    through_kafka = asyncio.create_task(operators.ask_elsewhere("doctor", "--url", site.urls[1], code=1))
    found = await told(operators, "dispatcher_stopped", "scheduler_stopped")
    assert "2 tasks wait" in found["dispatcher_stopped"]["what"]
    assert "no heartbeat from the offline scheduler" in found["scheduler_stopped"]["what"]
    found = problems(await through_kafka)
    assert found.keys() == {"ingress_down", "dispatcher_stopped", "scheduler_stopped"}
    assert f"the ingress at {site.urls[1]} does not answer" in found["ingress_down"]["what"]

    for name in ("ingress-1", "offline", "dispatcher"):
        site.roles[name].start()
    await site.ready()
    await operators.reached(waiting, "completed")
    assert await told(operators, code=0) == {}
