"""How many deliveries are under way at once, and whose: hosts that answer always find room beside those that do not.

A host that hangs holds a slot for the whole time-out. One such host has few slots of its own, but tenants may name as
many as they like: measured, 600 tasks to 600 of them held a good host's deliveries up for 5 to 18 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from dispatcher.webhooks.circuit_breaker import HostTier

UNKNOWN_SHARE, UNRESPONSIVE_SHARE = 3 / 4, 1 / 2
"""The share of all slots that hosts may hold together that have not answered yet, and of these the silent ones."""


class HostSlots:
    """The slots of a process; shares are entered from the narrowest to the widest, so nobody waits in a circle."""

    def __init__(self, total: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._unproven = asyncio.Semaphore(max(1, int(total * UNKNOWN_SHARE)))
        self._unresponsive = asyncio.Semaphore(max(1, int(total * UNRESPONSIVE_SHARE)))

    @asynccontextmanager
    async def slot(self, tier: HostTier) -> AsyncIterator[None]:
        """Hold a slot for the block; waits for it in the line of its kind."""
        async with AsyncExitStack() as stack:
            if tier is HostTier.UNRESPONSIVE:
                await stack.enter_async_context(self._unresponsive)
            if tier is not HostTier.RESPONSIVE:
                await stack.enter_async_context(self._unproven)
            await stack.enter_async_context(self._all)
            yield
