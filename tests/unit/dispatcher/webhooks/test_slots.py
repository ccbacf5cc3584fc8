"""Unresponsive hosts leave capacity for responsive ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from dispatcher.webhooks.circuit_breaker import HostCircuitBreakers, HostHealth, HostSlots, HostTier
from dispatcher.webhooks.http_client import AttemptResult, Disposition
from tests.support.waiting import turns
from tests.support.webhook_bench import WebhookBench

HEALTHY = "http://good.example/x"


class Poster:
    """Calls that end when the test ends them, except for those to the good host."""

    def __init__(self) -> None:
        self.under_way: Counter[str] = Counter()
        self.accepted = 0
        self.go = asyncio.Event()

    async def post(self, url: str, _: bytes, __: Mapping[str, str]) -> AttemptResult:
        """Respond, or hang."""
        if url == HEALTHY:
            self.accepted += 1
            return AttemptResult(Disposition.DELIVERED, "answered 200", "none", status=200)
        self.under_way[url] += 1
        try:
            await self.go.wait()
        finally:
            self.under_way[url] -= 1
        return AttemptResult(Disposition.RETRY, "no answer", "timeout", HostHealth.UNREACHABLE)

    async def close(self) -> None:
        """Do nothing."""


@pytest.fixture
async def bench() -> WebhookBench:
    made = WebhookBench(concurrency=16)
    await made.client.close()
    return made


async def test_six_hundred_hosts_that_hang_do_not_hold_up_one_that_answers(bench: WebhookBench) -> None:
    client = Poster()
    bench.worker._client = client  # type: ignore[assignment]
    await bench.worker.attempt(bench.new(HEALTHY))
    hanging = [
        asyncio.create_task(bench.worker.attempt(bench.new(f"http://dead-{number}.example/x"))) for number in range(600)
    ]
    await turns(40)
    assert client.under_way.total() == 12, "three quarters for those that have not answered yet"
    await asyncio.gather(*(bench.worker.attempt(bench.new(HEALTHY)) for _ in range(50)))
    assert client.accepted == 51
    client.go.set()
    await asyncio.gather(*hanging)
    assert len(bench.waiting) == 600


async def test_those_that_are_known_to_hang_leave_room_for_new_ones(bench: WebhookBench) -> None:
    client = Poster()
    bench.worker._client = client  # type: ignore[assignment]
    for number in range(30):
        bench.worker._hosts.report(f"dead-{number}.example", HostHealth.UNREACHABLE)
    hanging = [
        asyncio.create_task(bench.worker.attempt(bench.new(f"http://dead-{number}.example/x"))) for number in range(30)
    ]
    await turns(40)
    assert client.under_way.total() == 8
    await bench.worker.attempt(bench.new(HEALTHY))
    assert client.accepted == 1
    client.go.set()
    await asyncio.gather(*hanging)


def test_a_host_stands_as_its_last_attempt_tells() -> None:
    hosts = HostCircuitBreakers(4)
    assert hosts.tier("a") is HostTier.UNKNOWN
    for health, tier in (
        (HostHealth.UNREACHABLE, HostTier.UNRESPONSIVE),
        (HostHealth.OVERLOADED, HostTier.RESPONSIVE),
        (HostHealth.UNREACHABLE, HostTier.UNRESPONSIVE),
        (HostHealth.HEALTHY, HostTier.RESPONSIVE),
    ):
        hosts.report("a", health)
        assert hosts.tier("a") is tier


async def test_a_wait_that_is_cancelled_gives_everything_back() -> None:
    slots = HostSlots(2)

    async def hold(tier: HostTier) -> None:
        async with slots.slot(tier):
            await asyncio.Event().wait()

    held = [
        asyncio.create_task(hold(each)) for each in (HostTier.RESPONSIVE, HostTier.UNRESPONSIVE, HostTier.UNRESPONSIVE)
    ]
    await turns(40)
    for task in reversed(held):
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    async with asyncio.timeout(60), slots.slot(HostTier.UNRESPONSIVE), slots.slot(HostTier.RESPONSIVE):
        pass


async def test_a_single_slot_is_for_everybody() -> None:
    slots = HostSlots(1)
    for tier in HostTier:
        async with asyncio.timeout(60), slots.slot(tier):
            pass
