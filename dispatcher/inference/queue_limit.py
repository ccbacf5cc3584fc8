"""What one queue may do in this process now: nothing while it is paused, else so many calls at once of both levels."""

from __future__ import annotations

import asyncio

from dispatcher.inference.slots import Draining

UNBOUNDED = 1 << 30


class QueueLimit:
    """Room for the calls of one queue; every `take` needs exactly one `put_back`."""

    def __init__(self) -> None:
        self.paused = False
        self._limit = UNBOUNDED
        self._used = 0
        self._ended = False
        self._moved = asyncio.Event()

    def set(self, *, paused: bool, concurrency: int | None) -> None:
        """Follow the queue's settings; calls above a new limit go on, and nobody takes their place."""
        self.paused = paused
        self._limit = UNBOUNDED if concurrency is None else concurrency
        self._moved.set()

    @property
    def room(self) -> int:
        """Return how many more calls may begin."""
        return 0 if self.paused else max(0, self._limit - self._used)

    async def passed(self) -> None:
        """Wait until there is room, or the process stops."""
        while not self.room and not self._ended:
            self._moved.clear()
            await self._moved.wait()

    async def take(self) -> bool:
        """Wait for room and take it; False when the queue is paused meanwhile. Raises Draining."""
        while not self._ended:
            if self.paused:
                return False
            if self.room:
                self._used += 1
                return True
            self._moved.clear()
            await self._moved.wait()
        raise Draining

    def put_back(self) -> None:
        """End a call."""
        self._used -= 1
        self._moved.set()

    def end(self) -> None:
        """Send everybody who waits away: the process stops."""
        self._ended = True
        self._moved.set()
