"""Worker heartbeats to every scheduler: the claimed work of a worker without heartbeats is given to another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.clock import Clock, Deadline
from core.settings.models import Settings
from dispatcher.event_outbox import EventOutbox
from dispatcher.task_supervisor import TaskSupervisor
from schemas.events import worker_events
from schemas.kafka_record import AddressedRecord
from schemas.records import EventKind


class Heartbeat:
    """Sends heartbeats at the interval, and at once when the number of reachable upstreams changes."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        outbox: EventOutbox,
        running: Callable[[], int],
        upstreams_up: Callable[[], int],
        clock: Clock,
        unhealthy_reasons: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`unhealthy_reasons` describes the upstreams that accept no calls, for operators."""
        self._unhealthy_reasons = unhealthy_reasons
        self._settings = settings
        self._name = name
        self._outbox = outbox
        self._running = running
        self._upstreams_up = upstreams_up
        self._clock = clock
        self._soon = asyncio.Event()
        self._reported_up: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, supervisor: TaskSupervisor) -> None:
        """Start sending, the first time at once."""
        self._task = supervisor.spawn(self._run(), name="heartbeat")

    def check_upstreams(self) -> None:
        """Send a heartbeat at once when the number of reachable upstreams has changed."""
        if self._upstreams_up() != self._reported_up:
            self._soon.set()

    async def close(self, deadline: Deadline) -> None:
        """Announce the shutdown; no task is running on this worker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._outbox.write_all(self._records("goodbye"), deadline)

    async def _run(self) -> None:
        interval = self._settings.dispatcher.heartbeat_s
        while True:
            self._soon.clear()
            self._reported_up = self._upstreams_up()
            # While Kafka is unavailable one heartbeat waits, not one for each interval.
            await self._outbox.write_all(self._records("heartbeat"))
            try:
                async with asyncio.timeout(interval):
                    await self._soon.wait()
            except TimeoutError:
                continue

    def _records(self, kind: EventKind) -> list[AddressedRecord]:
        return list(
            worker_events(
                self._settings.kafka.topic_prefix,
                kind,
                partitions=self._settings.kafka.partitions,
                worker=self._name,
                at_ms=self._clock(),
                running=self._running(),
                upstreams_up=self._upstreams_up(),
                reason=self._unhealthy_reasons(),
            )
        )
