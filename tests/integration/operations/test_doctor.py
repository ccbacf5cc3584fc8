"""doctor names what was broken on purpose, through the ingress and, when that is down, from Kafka itself."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.operations.conftest import Site

FOUND_S = 120


async def told(site: Site, *wanted: str, code: int = 1) -> dict[str, Any]:
    """Ask until just these problems are found; what was broken before may need some seconds to be over."""
    give_up = time.monotonic() + FOUND_S
    while True:
        site.supervise()
        try:
            answer = await site.asked("doctor", code=code)
        except AssertionError:  # it found something, or nothing, and that is yet to change
            if time.monotonic() > give_up:
                raise
            continue
        problems = {one["code"]: one for one in answer["data"] if one["weight"] == "problem"}
        if problems.keys() == set(wanted):
            assert all(one["next_step"] for one in answer["data"])
            return problems
        assert time.monotonic() < give_up, answer


@pytest.mark.timeout(600)
async def test_doctor_names_each_of_what_is_broken(site: Site) -> None:
    await site.goes_through()
    assert await told(site, code=0) == {}
    assert "Nothing is stuck." in (await site.run("doctor")).stdout

    await site.run("queues", "pause", "plain")
    ids = await site.put("plain", 3)
    found = await told(site, "queue_paused")
    assert found["queue_paused"]["what"] == "queue plain is paused; 3 tasks wait"
    await site.run("queues", "resume", "plain")
    await site.reached(ids, "completed")

    await site.simulator.close()
    found = await told(site, "upstream_down")
    assert f"{site.simulator.url} does not answer" in found["upstream_down"]["what"]
    await site.simulator.start()
    await site.goes_through()

    site.stop("dispatcher")
    site.stop("offline", kill=True)
    waiting = await site.put("plain", 2)
    found = await told(site, "dispatcher_stopped", "scheduler_stopped")
    assert "2 tasks wait" in found["dispatcher_stopped"]["what"]
    assert "no offline scheduler was heard" in found["scheduler_stopped"]["what"]

    site.stop("ingress")
    found = await told(site, "ingress_down", "dispatcher_stopped", "scheduler_stopped")
    assert f"the ingress at {site.url} does not answer" in found["ingress_down"]["what"]

    for name in ("ingress", "offline", "dispatcher"):
        site.start(name)
    await site.ready()
    await site.reached(waiting, "completed")
    assert await told(site, code=0) == {}
