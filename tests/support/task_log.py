"""What the schedulers write of tasks: their results, and the rows of their states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition

from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import RESULT, STATUS
from schemas.records import Result, Status
from tests.support.site import Client
from tests.support.waiting import eventually_async

LEVELS = (0, 1)
MARKERS = 8
"""So many that no partition is without one."""


class TaskLog:
    """The results and rows of both levels, of all that happens after it was opened."""

    def __init__(self, settings: Settings) -> None:
        self.results: dict[str, list[Result]] = defaultdict(list)
        self.rows: dict[str, Status] = {}
        self.states: dict[str, list[str]] = defaultdict(list)
        self._results = {settings.topic(topics.results(level)) for level in LEVELS}
        rows = [settings.topic(topics.status(level)) for level in LEVELS]
        self.tail = TopicFollower(
            settings, name="task-log", topics=[*self._results, *rows], handle=self._on, start="latest"
        )

    def outcomes(self, task_id: str) -> list[str]:
        """Return the states that the results of a task name."""
        return [result["state"] for result in self.results.get(task_id, ())]

    def state(self, task_id: str) -> str:
        """Return the state of a task, `unknown` while it has none."""
        states = self.states.get(task_id)
        return states[-1] if states else "unknown"

    def of_queue(self, queue: str) -> list[Status]:
        """List the rows of a queue."""
        return [row for row in self.rows.values() if row["queue"] == queue]

    async def all_read(self, client: Client) -> None:
        """Return when tasks that are put now have ended: of those before them every partition has been read."""
        markers = [await client.submit() for _ in range(MARKERS)]
        await eventually_async(lambda: all(map(self.outcomes, markers)), what="the end of tasks that were put last")

    def _on(self, tp: TopicPartition, records: Records) -> None:
        for record in records:
            if record.value is None:
                continue  # the end of a row that was kept long enough
            if tp.topic in self._results:
                result = RESULT.decode(record.value)
                self.results[result["id"]].append(result)
            else:
                row = STATUS.decode(record.value)
                self.rows[row["id"]] = row
                self.states[row["id"]].append(row["state"])


@asynccontextmanager
async def task_log(settings: Settings) -> AsyncIterator[TaskLog]:
    """Follow the topics for the length of a block."""
    log = TaskLog(settings)
    await log.tail.open()
    try:
        yield log
    finally:
        await log.tail.close()
