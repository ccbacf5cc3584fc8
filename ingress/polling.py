"""Looks that wait for the end of their task: each is held by two small asyncio tasks, and woken by its row alone."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

from ingress.disconnect import watched
from ingress.services import Services


class Polls:
    """The held looks of one process; when it is full, or ends, a look does not wait."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limit = services.settings.ingress.max_waiting
        self._held: set[asyncio.Task[Any]] = set()
        self._closing = False
        services.waiters.at_shutdown(self.shut_down)

    def __len__(self) -> int:
        return len(self._held)

    async def until_ended(self, key: bytes, receive: Receive, *, seconds: float) -> bool:
        """Wait for the end of a task, and no longer than its client stays; tells whether waiting was possible."""
        if self._closing or len(self._held) >= self._limit:
            return False
        waiting = asyncio.create_task(self._services.view.until_ended(key, seconds=seconds), name="poll")
        self._held.add(waiting)

        def give_up() -> None:
            waiting.cancel()

        try:
            async with watched(receive, give_up):
                await asyncio.wait({waiting})
        finally:
            waiting.cancel()
            self._held.discard(waiting)
        return True

    def shut_down(self) -> None:
        """Let every look be answered with the task as it stands."""
        self._closing = True
        for waiting in self._held:
            waiting.cancel()
