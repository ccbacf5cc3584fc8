"""Circuit breakers and concurrency limits per host: an unreachable host does not delay deliveries to other hosts.

A host starts with all its slots. A network failure takes one away, a success adds one. After FAILURE_THRESHOLD failures
without a success its circuit opens for a while; then one delivery probes the host, and more follow while they succeed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum

FAILURE_THRESHOLD = 10
"""Consecutive failures that open a host's circuit."""
OPEN_S, MAX_OPEN_S = 1.0, 60.0
"""Initial and maximum time that a circuit stays open: it doubles with every probe that fails."""
QUEUE_TIMEOUT_S = 15.0
"""Maximum expected wait of the deliveries that are queued in memory for one host; further ones wait in Kafka."""
STALL_TIMEOUT_S, SMOOTHING = 1.0, 0.1
"""The interval between finished attempts is a moving average; after so long without one, that time counts instead."""
MAX_HOSTS = 10_000
"""Maximum hosts in memory; tenants may use any number of them."""
UNKNOWN_SHARE, UNRESPONSIVE_SHARE = 3 / 4, 1 / 2
"""Share of all slots that hosts may use together that have not responded yet, and of these the unresponsive ones."""


class CircuitOpen(Exception):
    """The circuit of a host is open for some more seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"circuit open for {seconds:.1f} s")
        self.seconds = seconds


class HostHealth(Enum):
    """Result of an attempt for the health of its host."""

    HEALTHY = "good"
    OVERLOADED = "busy"
    UNREACHABLE = "away"


class HostTier(Enum):
    """Result of the last finished attempt of a host."""

    RESPONSIVE = "answers"
    UNKNOWN = "unknown"
    UNRESPONSIVE = "silent"


class _Host:
    __slots__ = ("ended_at", "failures", "interval_s", "limit", "open_until", "openings", "running", "tier", "waiting")

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.ended_at = now
        self.interval_s = 0.0
        self.running = self.failures = self.openings = 0
        self.open_until = 0.0
        self.tier = HostTier.UNKNOWN
        self.waiting: deque[asyncio.Future[None]] = deque()

    def wake(self) -> None:
        while self.waiting and self.running < self.limit:
            future = self.waiting.popleft()
            if not future.done():
                self.running += 1
                future.set_result(None)


class HostCircuitBreakers:
    """The circuits and slots of all hosts."""

    def __init__(self, per_host: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_host = per_host
        self._clock = clock
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    def open_for_s(self, name: str) -> float:
        """Return the seconds until a host may be called again; 0 means now."""
        host = self._hosts.get(name)
        return 0.0 if host is None else max(0.0, host.open_until - self._clock())

    def tier(self, name: str) -> HostTier:
        """Return whether a host responds."""
        host = self._hosts.get(name)
        return HostTier.UNKNOWN if host is None else host.tier

    def saturated(self, name: str) -> bool:
        """Return whether the expected wait for a slow host is too long for further deliveries in memory."""
        host = self._hosts.get(name)
        if host is None or not host.waiting:
            return False
        silent_s = self._clock() - host.ended_at
        return len(host.waiting) * (silent_s if silent_s > STALL_TIMEOUT_S else host.interval_s) > QUEUE_TIMEOUT_S

    def open_count(self) -> int:
        """Return the number of open circuits."""
        now = self._clock()
        return sum(host.open_until > now for host in self._hosts.values())

    @asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """Hold one of the host's slots for the block; raises CircuitOpen when its circuit has opened meanwhile."""
        host = self._host(name)
        if host.running < host.limit:
            if not host.running:
                host.ended_at = self._clock()  # the measurement starts with the first running attempt
            host.running += 1
        else:
            await self._wait_turn(host)
        try:
            if (seconds := max(0.0, host.open_until - self._clock())) > 0:
                raise CircuitOpen(seconds)
            yield
        finally:
            host.running -= 1
            now = self._clock()
            host.interval_s += SMOOTHING * (now - host.ended_at - host.interval_s)
            host.ended_at = now
            host.wake()

    def report(self, name: str, health: HostHealth) -> None:
        """Record how an attempt went."""
        host = self._host(name)
        host.tier = HostTier.UNRESPONSIVE if health is HostHealth.UNREACHABLE else HostTier.RESPONSIVE
        if health is HostHealth.HEALTHY:
            host.failures = host.openings = 0
            host.limit = min(self._per_host, host.limit + 1)
            host.wake()
            return
        host.limit = max(1, host.limit - 1)
        if health is HostHealth.OVERLOADED:
            host.failures = host.openings = 0
            return
        host.failures += 1
        if host.open_until > self._clock():
            return  # it was running when the circuit opened
        if host.failures >= FAILURE_THRESHOLD or host.openings:
            host.open_until = self._clock() + min(MAX_OPEN_S, OPEN_S * 2**host.openings)
            host.openings += 1
            host.limit = 1

    async def _wait_turn(self, host: _Host) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                host.running -= 1  # it got its slot at the moment of its cancel
                host.wake()
            raise

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(self._per_host, self._clock())
            if len(self._hosts) > MAX_HOSTS:
                self._evict()
        self._hosts.move_to_end(name)
        return host

    def _evict(self) -> None:
        oldest = next((name for name, host in self._hosts.items() if not host.running and not host.waiting), None)
        if oldest is not None:
            del self._hosts[oldest]


class HostSlots:
    """The slots of a process; shares are acquired from the narrowest to the widest, so there is no deadlock."""

    def __init__(self, total: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._unproven = asyncio.Semaphore(max(1, int(total * UNKNOWN_SHARE)))
        self._unresponsive = asyncio.Semaphore(max(1, int(total * UNRESPONSIVE_SHARE)))

    @asynccontextmanager
    async def slot(self, tier: HostTier) -> AsyncIterator[None]:
        """Hold a slot for the block; waits for it among the hosts of the same tier."""
        async with AsyncExitStack() as stack:
            if tier is HostTier.UNRESPONSIVE:
                await stack.enter_async_context(self._unresponsive)
            if tier is not HostTier.RESPONSIVE:
                await stack.enter_async_context(self._unproven)
            await stack.enter_async_context(self._all)
            yield
