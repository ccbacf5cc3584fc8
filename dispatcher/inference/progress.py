"""How far streamed calls are: their deltas counted against the request's limit of tokens, told twice a second at most.

A delta is a token for nearly every model server; a rough figure is what a progress bar needs. Calls that do not stream,
and those that name no limit, are never looked at: their tasks go from 0 to 100.
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
"""The least time between two reports of one task."""
MAX_PERCENT = 99
"""Only the outcome says 100."""
LIMITS = ("max_completion_tokens", "max_tokens")


class ProgressReporter:
    """Watches the streams of one process and reports those that have grown."""

    def __init__(self, settings: Settings, *, name: str, outbox: EventOutbox, clock: Clock) -> None:
        self._prefix = settings.kafka.topic_prefix
        self._name = name
        self._outbox = outbox
        self._clock = clock
        self._limits: dict[WorkItem, int] = {}
        self._reported: dict[WorkItem, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, supervisor: TaskSupervisor) -> None:
        """Begin to report."""
        self._task = supervisor.spawn(self._run(), name="progress")

    async def close(self) -> None:
        """Stop reporting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follow(self, item: WorkItem) -> None:
        """Watch a stream, if there is something to count it against."""
        limit = token_limit(item.work)
        if limit is not None:
            self._limits[item], self._reported[item] = limit, 0

    def forget(self, item: WorkItem) -> None:
        """Watch it no more."""
        if self._limits.pop(item, None) is not None:
            del self._reported[item]

    def report(self) -> None:
        """Queue an event for every claimed stream that has grown; none while Kafka takes no events."""
        if not self._outbox.has_capacity:
            return
        for item, limit in self._limits.items():
            percent = min(item.deltas() * 100 // limit, MAX_PERCENT)
            # A claim comes first, so that the row knows whose progress this is.
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
    """Return the most tokens that a request's answers may have together; None when it does not say."""
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
