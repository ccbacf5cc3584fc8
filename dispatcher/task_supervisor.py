"""Supervisor of the long-lived asyncio tasks of a process: when one of them fails, the process stops with an error.

It belongs to the dispatcher and not to core, because the other roles run their tasks in Faust or in the HTTP server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from core.errors import FatalError


class TaskSupervisor:
    """Tasks that must not end with an error."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[FatalError] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task; the caller cancels it in the end."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set; raises FatalError as soon as a task has failed."""
        stopping = asyncio.create_task(stop.wait(), name="wait-stop")
        try:
            ends: list[asyncio.Future[Any]] = [stopping, self._broken]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._broken.done():
            raise self._broken.result()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None or self._broken.done():
            return
        fatal = FatalError(f"{task.get_name()} failed: {str(error) or type(error).__name__}")
        fatal.__cause__ = error
        self._broken.set_result(fatal)
