"""Progress of streamed calls: deltas relative to the request's token limit, reported at most twice a second.

A delta is a token for nearly every model server, and a progress bar needs a rough figure only. Calls that do not
stream, and those without a limit, are not tracked: their tasks go from 0 to 100.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from core.clock import Clock
from core.settings.models import Settings
from dispatcher.event_outbox import EventOutbox
from dispatcher.inference.work_item import Phase, WorkItem
from dispatcher.task_supervisor import TaskSupervisor
from schemas.events import event, task_event
from schemas.json_text import read_json
from schemas.media_types import JSON
from schemas.records import Work

INTERVAL_S = 0.5
"""Minimum time between two reports of one task."""
MAX_PERCENT = 99
"""Only the outcome sets 100."""
LIMITS = ("max_completion_tokens", "max_tokens")


class ProgressReporter:
    """Tracks the streams of one process and reports those with progress."""

    def __init__(self, settings: Settings, *, name: str, outbox: EventOutbox, clock: Clock) -> None:
        self._prefix = settings.kafka.topic_prefix
        self._name = name
        self._outbox = outbox
        self._clock = clock
        self._limits: dict[WorkItem, int] = {}
        self._reported: dict[WorkItem, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, supervisor: TaskSupervisor) -> None:
        """Start reporting."""
        self._task = supervisor.spawn(self._run(), name="progress")

    async def close(self) -> None:
        """Stop reporting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follow(self, item: WorkItem) -> None:
        """Track a stream, if its request has a token limit."""
        limit = token_limit(item.work)
        if limit is not None:
            self._limits[item], self._reported[item] = limit, 0

    def forget(self, item: WorkItem) -> None:
        """Stop tracking a stream."""
        if self._limits.pop(item, None) is not None:
            del self._reported[item]

    def report(self) -> None:
        """Enqueue an event for every claimed stream with progress; none while event writes are failing."""
        if not self._outbox.has_capacity:
            return
        for item, limit in self._limits.items():
            percent = min(item.deltas() * 100 // limit, MAX_PERCENT)
            # The claim comes first, so that the scheduler knows which worker reports.
            if percent <= self._reported[item] or not item.claimed or item.phase is Phase.ENDED:
                continue
            self._reported[item] = percent
            task_id, attempt = item.key
            happened = event(
                "progress",
                at_ms=self._clock(),
                task_id=task_id,
                attempt=attempt,
                worker=self._name,
                progress=percent,
            )
            self._outbox.enqueue(task_event(self._prefix, item.work, happened, partition=item.home))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.report()


def token_limit(work: Work) -> int | None:
    """Return the maximum number of tokens of all choices together; None when the request has no limit."""
    if not work["data"] or work["content_type"] != JSON:
        return None
    try:
        body = read_json(work["data"])
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    limit = next((body[name] for name in LIMITS if _whole(body.get(name))), None)
    answers = body.get("n")
    return limit if limit is None or not _whole(answers) else limit * answers


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
