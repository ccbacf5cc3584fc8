"""Consumers of work: one consumer group per queue and level, so that a new queue causes no rebalance of another."""

from __future__ import annotations

import asyncio
import logging

from core.clock import Deadline
from core.dead_letters.record import send_to_dead_letters
from core.kafka.producer import Producer
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.commit_loop import CommitLoop
from dispatcher.group_consumer import GroupConsumer, ReceivedRecord
from dispatcher.inference.concurrency import ONLINE, AdaptiveLimit, CallSlots, Draining, IntakeGate, QueueLimit
from dispatcher.inference.runner import Runner
from dispatcher.inference.seen_attempts import SeenAttempts
from dispatcher.inference.work_item import MalformedWork, WorkItem
from dispatcher.offset_tracker import OffsetTracker
from dispatcher.task_supervisor import TaskSupervisor
from schemas import topics
from schemas.records import Queue

log = logging.getLogger(__name__)

MAX_POLL_RECORDS = 32
REVOKE_TIMEOUT_S = 4.0
"""How long a revoke may delay the group; work that is not claimed by then is run again by the next owner."""
QUEUE_PAUSED = "the queue is paused"
PARALLEL_JOINS = 8
"""Groups joined at the same time: a start with hundreds of queues must not overload the coordinator."""


class QueueConsumer:
    """Receives the work of one queue and level whenever there is capacity for it."""

    def __init__(self, consumers: QueueConsumers, queue: str, level: int, limit: QueueLimit) -> None:
        self._consumers = consumers
        self.limit = limit
        self._level = level
        self.discarding = False
        """Whether pull workers serve the queue now: the rest of its topic is discarded."""
        self._loaded: dict[int, OffsetTracker] = {}
        topic = consumers.settings.topic(topics.work(queue, level))
        self.consumer = GroupConsumer(
            consumers.settings,
            name=f"{consumers.name}-{queue}-{topics.level_name(level)}",
            group=topic,
            topics=[topic],
            on_revoke=self._revoked,
        )
        consumers.commit_loop.watch(self.consumer)
        self.task = consumers.supervisor.spawn(self._run(), name=f"consumer-{topic}")

    async def _run(self) -> None:
        """Poll and start; one record more than there is capacity for shows the slots that its level waits."""
        consumers = self._consumers
        async with consumers.joining:
            await self.consumer.open()
        while True:
            await consumers.gate.wait_open()
            if not self.discarding:
                await self.limit.wait_available()
            if consumers.stopping:
                return
            if self.discarding:
                for received in await self.consumer.poll(MAX_POLL_RECORDS):
                    received.tracker.completed(received.record.offset)
                continue
            room = min(consumers.slots.available(self._level), self.limit.available)
            try:
                for item in await self._receive(room):
                    await self._start(item)
            except Draining:
                return

    async def _receive(self, room: int) -> list[WorkItem]:
        items: list[WorkItem] = []
        for received in await self._without_seen(await self.consumer.poll(min(max(1, room), MAX_POLL_RECORDS))):
            item = await self._admit(received)
            if item is not None:
                items.append(item)
        if items and self._level == ONLINE:
            self._consumers.adaptive_limit.note_online()
        return items

    async def _without_seen(self, records: list[ReceivedRecord]) -> list[ReceivedRecord]:
        """Load the seen attempts of newly assigned partitions before any of their work is admitted.

        Records of partitions that were revoked meanwhile are left out and not completed: the new owner receives them.
        """
        fresh = [
            received for received in records if self._loaded.get(received.record.partition) is not received.tracker
        ]
        if not fresh:
            return records
        consumer = self.consumer
        await self._consumers.seen_attempts.ensure_loaded(
            self._level,
            oldest_ms=min(received.record.timestamp for received in fresh),
            assigned_ms=consumer.assigned_ms,
            assigned_at=consumer.assigned_at,
        )
        ours = [received for received in records if consumer.owns(received)]
        self._loaded |= {received.record.partition: received.tracker for received in ours}
        return ours

    async def _start(self, item: WorkItem) -> None:
        """Start an item once there is a slot for it, or return it when its queue was paused meanwhile."""
        consumers, limit = self._consumers, self.limit
        if not await limit.acquire():
            consumers.runner.return_item(item, reason=QUEUE_PAUSED)
            return
        try:
            await consumers.slots.acquire(self._level)
        except BaseException:
            limit.release()
            raise
        if limit.paused:
            consumers.slots.release(self._level)
            consumers.runner.return_item(item, reason=QUEUE_PAUSED)
        elif (call := consumers.runner.start(item)) is not None:
            call.add_done_callback(lambda _: limit.release())
            return
        limit.release()

    async def _admit(self, received: ReceivedRecord) -> WorkItem | None:
        try:
            return self._consumers.runner.admit(received)
        except MalformedWork as error:
            await self._dead_letter(received, error)
            return None

    async def _dead_letter(self, received: ReceivedRecord, error: MalformedWork) -> None:
        record, consumers = received.record, self._consumers
        metrics.INVALID_WORK.inc()
        log.error(
            "sent %s/%d@%d to the dead-letter topic: %s",
            record.topic,
            record.partition,
            record.offset,
            error.message,
            extra={"event": "dead_lettered", "partition": record.partition, "offset": record.offset},
        )
        await send_to_dead_letters(
            consumers.producer,
            consumers.settings,
            record,
            reason=error.message,
            field=error.field,
            attempt=error.attempt,
        )
        received.tracker.completed(record.offset)

    async def _revoked(self) -> None:
        await self._consumers.commit_loop.run_once([self.consumer], Deadline(REVOKE_TIMEOUT_S), last=True)


class QueueConsumers:
    """The consumers of all queues in this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        supervisor: TaskSupervisor,
        slots: CallSlots,
        gate: IntakeGate,
        adaptive_limit: AdaptiveLimit,
        seen_attempts: SeenAttempts,
        runner: Runner,
        commit_loop: CommitLoop,
        producer: Producer,
    ) -> None:
        self.settings = settings
        self.supervisor = supervisor
        self.name = name
        self.slots = slots
        self.gate = gate
        self.adaptive_limit = adaptive_limit
        self.seen_attempts = seen_attempts
        self.runner = runner
        self.commit_loop = commit_loop
        self.producer = producer
        self.joining = asyncio.Semaphore(PARALLEL_JOINS)
        self.stopping = False
        self._consumers: dict[str, list[QueueConsumer]] = {}
        self._limits: dict[str, QueueLimit] = {}

    def add(self, queue: Queue) -> None:
        """Start to serve a queue, or stop when pull workers serve it from now on; apply its settings."""
        name = queue["name"]
        limit = self._limits.setdefault(name, QueueLimit())
        limit.set(paused=queue["paused"] and queue["served_by"] != "workers", concurrency=queue["concurrency"])
        if queue["served_by"] == "workers":
            for consumer in self._consumers.get(name, ()):
                consumer.discarding = True
            return
        if self.stopping or name in self._consumers:
            return
        self._consumers[name] = [QueueConsumer(self, name, level, limit) for level in range(len(topics.LEVELS))]
        metrics.QUEUE_CONSUMERS.set(len(self.consumers))
        log.info("serving queue %s", name, extra={"event": "queue_consumer_started", "queue": name})

    @property
    def consumers(self) -> list[GroupConsumer]:
        """Return the group members of all queues."""
        return [consumer.consumer for consumers in self._consumers.values() for consumer in consumers]

    @property
    def joined(self) -> bool:
        """Return whether every consumer has its assignment."""
        return all(consumer.assigned for consumer in self.consumers)

    async def stop(self, deadline: Deadline) -> None:
        """Receive nothing more; returns when all consumers have stopped."""
        self.stopping = True
        self.gate.close()
        for limit in self._limits.values():
            limit.close()
        self.slots.close()
        await self.seen_attempts.close()
        tasks = [consumer.task for consumers in self._consumers.values() for consumer in consumers]
        if tasks:
            await asyncio.wait(tasks, timeout=deadline.left(1.0))

    async def leave(self, deadline: Deadline) -> None:
        """Leave every group, so that its partitions are reassigned at once."""
        await asyncio.gather(*(consumer.close(deadline) for consumer in self.consumers))
        tasks = [consumer.task for consumers in self._consumers.values() for consumer in consumers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
