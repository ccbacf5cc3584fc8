"""Long polls: requests that wait for the end of a task. Each holds two small asyncio tasks, woken by its row alone."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

from core.settings.models import Settings
from ingress.http.responses import on_disconnect
from ingress.metrics import Metrics
from ingress.read_model.task_lookup import TaskLookup
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from ingress.waiting.waiters import Waiters


class LongPolls:
    """The long polls of one process; when it is full, or stops, a request does not wait."""

    def __init__(
        self, settings: Settings, *, view: TaskView, task_lookup: TaskLookup, waiters: Waiters, metrics: Metrics
    ) -> None:
        self._view = view
        self._task_lookup = task_lookup
        self._limit = settings.ingress.max_blocking_requests
        self._held: set[asyncio.Task[Any]] = set()
        self._finding: dict[tuple[str, str], asyncio.Task[TaskSnapshot]] = {}
        self._closing = False
        waiters.add_shutdown_listener(self.shut_down)
        metrics.watch_polls(lambda: len(self))

    def __len__(self) -> int:
        return len(self._held)

    async def wait_until_ended(self, key: bytes, receive: Receive, *, seconds: float) -> bool:
        """Wait for the end of a task or a disconnect; returns whether there was room to wait."""
        if self._closing or len(self._held) >= self._limit:
            return False
        waiting = asyncio.create_task(self._view.wait_until_ended(key, seconds=seconds), name="poll")
        self._held.add(waiting)

        def give_up() -> None:
            waiting.cancel()

        try:
            async with on_disconnect(receive, give_up):
                await asyncio.wait({waiting})
        finally:
            waiting.cancel()
            self._held.discard(waiting)
        return True

    async def find(self, task_id: str, *, owner: str) -> TaskSnapshot:
        """Return a task without its request body; concurrent callers, such as those woken together, share it."""
        asked = (task_id, owner)
        finding = self._finding.get(asked)
        if finding is None:
            finding = asyncio.create_task(self._task_lookup.find(task_id, owner=owner, data=False), name="find")
            self._finding[asked] = finding
            finding.add_done_callback(lambda done: self._found(asked, done))
        return await asyncio.shield(finding)

    def _found(self, asked: tuple[str, str], done: asyncio.Task[TaskSnapshot]) -> None:
        del self._finding[asked]
        if not done.cancelled():
            done.exception()  # retrieved, because all callers may have disconnected

    def shut_down(self) -> None:
        """Let every long poll return the task in its present state."""
        self._closing = True
        for waiting in self._held:
            waiting.cancel()
