"""The commit tick: what still runs is claimed, then the offsets below it are committed.

So an offset never waits for a model, and a kill -9 re-runs at most what was taken since the last tick. No claim
waits for a commit: what is claimed is not run again, however late its offset is committed.
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
"""A tick that Kafka holds up for longer is given up; its claims stay in the outbox and the next tick goes on."""


class CommitLoop:
    """Tick at the commit interval, and at once when asked."""

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
        """Begin to tick."""
        self._task = supervisor.spawn(self._run(supervisor), name="commit-loop")

    async def close(self) -> None:
        """Stop ticking."""
        tasks = [task for task in (self._task, *self._committing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_once(self, consumers: Iterable[GroupConsumer], deadline: Deadline, *, last: bool = False) -> None:
        """Claim everything that runs, then commit these readers; with the time up, what is safe by then.

        `last` waits for the outcomes on their way too: whoever owns the partitions next must not run them again.
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
        """Commit beside the ticks: one that hangs, as after a broker's return, holds up nobody but its own reader."""
        try:
            await consumer.commit()
        finally:
            del self._committing[consumer]
