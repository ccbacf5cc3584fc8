"""Slots per host, and when its circuit opens."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher.webhooks.circuit_breaker import (
    FAILURE_THRESHOLD,
    MAX_HOSTS,
    MAX_OPEN_S,
    CircuitOpen,
    HostCircuitBreakers,
    HostHealth,
)
from tests.support.clocks import SecondClock


@pytest.fixture
def hosts(clock: SecondClock) -> HostCircuitBreakers:
    return HostCircuitBreakers(4, clock=clock)


def fail(hosts: HostCircuitBreakers, name: str = "a", times: int = FAILURE_THRESHOLD) -> None:
    for _ in range(times):
        hosts.report(name, HostHealth.UNREACHABLE)


async def test_one_host_has_its_slots_and_no_more(hosts: HostCircuitBreakers) -> None:
    running, most = 0, 0
    go = asyncio.Event()

    async def call(name: str) -> None:
        nonlocal running, most
        async with hosts.slot(name):
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1

    calls = [asyncio.create_task(call("a")) for _ in range(10)]
    other = asyncio.create_task(call("b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert running == 5, "four of the one, and the other is not held up"
    go.set()
    await asyncio.gather(*calls, other)
    assert most <= 5


async def test_a_cancelled_wait_gives_its_turn_on(hosts: HostCircuitBreakers) -> None:
    go = asyncio.Event()

    async def call() -> None:
        async with hosts.slot("a"):
            await go.wait()

    running = [asyncio.create_task(call()) for _ in range(4)]
    waiting = [asyncio.create_task(call()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    running[0].cancel()
    waiting[0].cancel()
    done = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in done) == 2
    async with asyncio.timeout(60), hosts.slot("a"):
        pass


async def test_a_host_that_only_fails_is_closed_and_opened_by_one_call(
    hosts: HostCircuitBreakers, clock: SecondClock
) -> None:
    fail(hosts, times=FAILURE_THRESHOLD - 1)
    assert hosts.open_for_s("a") == 0
    fail(hosts, times=1)
    assert hosts.open_for_s("a") == 1
    assert hosts.open_count() == 1
    assert hosts.open_for_s("b") == 0
    fail(hosts, times=5)
    assert hosts.open_for_s("a") == 1, "calls that were under way make it no worse"
    clock.now_s += 1
    running: list[int] = []
    go = asyncio.Event()

    async def call() -> None:
        async with hosts.slot("a"):
            running.append(1)
            await go.wait()
            hosts.report("a", HostHealth.HEALTHY)

    calls = [asyncio.create_task(call()) for _ in range(6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(running) == 1, "one goes first: no herd after an outage"
    go.set()
    await asyncio.gather(*calls)


async def test_the_time_doubles_with_every_probe_that_fails(hosts: HostCircuitBreakers, clock: SecondClock) -> None:
    fail(hosts)
    waits = []
    for _ in range(9):
        waits.append(hosts.open_for_s("a"))
        clock.now_s += waits[-1]
        fail(hosts, times=1)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, MAX_OPEN_S]
    clock.now_s += 60
    hosts.report("a", HostHealth.HEALTHY)
    fail(hosts, times=FAILURE_THRESHOLD - 1)
    assert hosts.open_for_s("a") == 0


async def test_waiting_deliveries_are_rejected_when_a_circuit_opens(hosts: HostCircuitBreakers) -> None:
    go = asyncio.Event()

    async def call() -> None:
        async with hosts.slot("a"):
            await go.wait()

    running = [asyncio.create_task(call()) for _ in range(4)]
    waiting = [asyncio.create_task(call()) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    fail(hosts)
    go.set()
    await asyncio.gather(*running)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, CircuitOpen) and each.seconds == 1 for each in told)


async def test_a_busy_host_is_called_less_and_not_closed(hosts: HostCircuitBreakers) -> None:
    for _ in range(3 * FAILURE_THRESHOLD):
        hosts.report("a", HostHealth.OVERLOADED)
    assert hosts.open_for_s("a") == 0
    async with hosts.slot("a"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), hosts.slot("a"):
                pass


async def test_the_line_of_a_slow_host_is_bounded_by_time(hosts: HostCircuitBreakers, clock: SecondClock) -> None:
    go = asyncio.Semaphore(0)

    async def call() -> None:
        async with hosts.slot("a"):
            await go.acquire()

    async def end(number: int, *, each_s: float) -> None:
        for _ in range(number):
            clock.now_s += each_s
            go.release()
            for _ in range(4):
                await asyncio.sleep(0)

    calls = [asyncio.create_task(call()) for _ in range(500)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not hosts.saturated("a"), "a burst is no crowd"
    await end(100, each_s=0.01)
    assert not hosts.saturated("a"), "a line of 400 that is over in 4 s is none"
    await end(50, each_s=0.5)
    assert hosts.saturated("a"), "one of 350 at half a second each is"
    await end(300, each_s=0.01)
    assert not hosts.saturated("a")
    clock.now_s += 2
    assert hosts.saturated("a"), "nothing has ended for two seconds"
    assert not hosts.saturated("b")
    await end(60, each_s=0.0)
    await asyncio.gather(*calls)


def test_hosts_without_calls_are_forgotten(hosts: HostCircuitBreakers) -> None:
    for number in range(MAX_HOSTS + 50):
        hosts.report(f"host-{number}", HostHealth.HEALTHY)
    assert len(hosts) == MAX_HOSTS
