"""A blocking request: one future that the result, a disconnect, the time-out or the shutdown completes."""

from __future__ import annotations

import asyncio
from enum import Enum

from starlette.types import Receive

from core.clock import epoch_ms
from ingress.http.responses import on_disconnect
from schemas.records import Chunk, Result

GRACE_S = 2.0
"""The scheduler ends a task at its deadline; wait this much longer for its result."""


class WaitOutcome(Enum):
    """Why a request ended without a result."""

    GONE = "the client went away"
    TIMEOUT = "the task timed out"
    SHUTDOWN = "the process ends"


class BlockingWaiter:
    """Waits for one result."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[Result | WaitOutcome] = asyncio.get_running_loop().create_future()

    def on_result(self, result: Result) -> None:
        """Receive the result; later ones are ignored."""
        self._end(result)

    def on_chunk(self, chunk: Chunk) -> None:
        """Ignore it: only streams use chunks."""

    def on_shutdown(self) -> None:
        """Stop waiting, because this process stops."""
        self._end(WaitOutcome.SHUTDOWN)

    async def wait(self, receive: Receive, *, deadline_ms: int, hold_s: float | None = None) -> Result | WaitOutcome:
        """Return the result, or why there is none; `hold_s` bounds the wait for a task that may take longer."""
        left_s = timeout_s_of(deadline_ms)
        seconds = left_s if hold_s is None else min(left_s, hold_s)
        async with on_disconnect(receive, lambda: self._end(WaitOutcome.GONE)):
            try:
                async with asyncio.timeout(seconds):
                    return await self._ended
            except TimeoutError:
                return WaitOutcome.TIMEOUT

    def _end(self, how: Result | WaitOutcome) -> None:
        if not self._ended.done():
            self._ended.set_result(how)


def timeout_s_of(deadline_ms: int) -> float:
    """Return how long to wait for a task with this deadline, seconds."""
    return max(deadline_ms - epoch_ms(), 0) / 1000 + GRACE_S
