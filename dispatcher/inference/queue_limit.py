"""What one queue may do in this process now: nothing while it is paused, else so many calls at once of both levels."""

from __future__ import annotations

import asyncio

from dispatcher.inference.slots import Draining

UNBOUNDED = 1 << 30


class QueueLimit:
    """Room for the calls of one queue; every `acquire` needs exactly one `release`."""

    def __init__(self) -> None:
        self.paused = False
        self._limit = UNBOUNDED
        self._used = 0
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, *, paused: bool, concurrency: int | None) -> None:
        """Follow the queue's settings; calls above a new limit go on, and nobody takes their place."""
        self.paused = paused
        self._limit = UNBOUNDED if concurrency is None else concurrency
        self._changed.set()

    @property
    def available(self) -> int:
        """Return how many more calls may begin."""
        return 0 if self.paused else max(0, self._limit - self._used)

    async def wait_available(self) -> None:
        """Wait until there is room, or the process stops."""
        while not self.available and not self._closed:
            self._changed.clear()
            await self._changed.wait()

    async def acquire(self) -> bool:
        """Wait for room and take it; False when the queue is paused meanwhile. Raises Draining."""
        while not self._closed:
            if self.paused:
                return False
            if self.available:
                self._used += 1
                return True
            self._changed.clear()
            await self._changed.wait()
        raise Draining

    def release(self) -> None:
        """End a call."""
        self._used -= 1
        self._changed.set()

    def close(self) -> None:
        """Send everybody who waits away: the process stops."""
        self._closed = True
        self._changed.set()
