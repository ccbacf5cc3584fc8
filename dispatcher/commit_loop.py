"""Periodically claim the running work and commit the offsets below it.

An offset therefore never waits for a model server, and after a kill -9 at most the work received since the last run is
repeated. Claims do not wait for commits: claimed work is not run again, however late its offset is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from core.clock import Deadline
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.event_outbox import EventOutbox
from dispatcher.group_consumer import GroupConsumer
from dispatcher.inference.runner import Runner
from dispatcher.task_supervisor import TaskSupervisor
from schemas.events import task_event

CLAIM_TIMEOUT_S = 10.0
"""Timeout of writing the claims of one run; they stay in the outbox, and the next run continues."""


class CommitLoop:
    """Runs at the commit interval, and on request."""

    def __init__(self, settings: Settings, *, runner: Runner, outbox: EventOutbox) -> None:
        self._settings = settings
        self._prefix = settings.kafka.topic_prefix
        self._runner = runner
        self._outbox = outbox
        self._consumers: list[GroupConsumer] = []
        self._claiming = asyncio.Lock()
        self._committing: dict[GroupConsumer, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, consumer: GroupConsumer) -> None:
        """Commit the offsets of this consumer from now on."""
        self._consumers.append(consumer)

    def start(self, supervisor: TaskSupervisor) -> None:
        """Start the loop."""
        self._task = supervisor.spawn(self._run(supervisor), name="commit-loop")

    async def close(self) -> None:
        """Stop the loop."""
        tasks = [task for task in (self._task, *self._committing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_once(self, consumers: Iterable[GroupConsumer], deadline: Deadline, *, last: bool = False) -> None:
        """Claim all running work, then commit these consumers; at the deadline, what is safe by then.

        `last` also waits for outcomes that are being written: the next owner of the partitions must not run that work
        again.
        """
        await self._claim(deadline)
        if last:
            await self._outbox.caught_up(deadline)
        await asyncio.gather(*(consumer.commit(deadline) for consumer in consumers))

    async def _claim(self, deadline: Deadline) -> None:
        async with self._claiming:
            claims = self._runner.due_claims()
            events = [
                task_event(self._prefix, item.work, happened, partition=item.home, traceparent=item.traceparent)
                for item, happened in claims
            ]
            if await self._outbox.write_all(events, deadline):
                metrics.CLAIMED.inc(len(claims))
                for item, happened in claims:
                    item.streamed = happened["streamed"]
                    item.claim()

    async def _run(self, supervisor: TaskSupervisor) -> None:
        while True:
            await asyncio.sleep(self._settings.dispatcher.commit_interval_s)
            await self._claim(Deadline(CLAIM_TIMEOUT_S))
            for consumer in self._consumers:
                if consumer.to_commit and consumer not in self._committing:
                    self._committing[consumer] = supervisor.spawn(
                        self._commit(consumer), name=f"commit-{consumer.name}"
                    )

    async def _commit(self, consumer: GroupConsumer) -> None:
        """Commit in a task of its own: a hanging commit, as after a broker restart, delays no other consumer."""
        try:
            await consumer.commit()
        finally:
            del self._committing[consumer]
