"""The lanes: one consumer group per queue and level, so that a new queue disturbs no other."""

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
from dispatcher.inference.adaptive_limit import AdaptiveLimit
from dispatcher.inference.intake_gate import IntakeGate
from dispatcher.inference.queue_limit import QueueLimit
from dispatcher.inference.runner import Runner
from dispatcher.inference.seen_attempts import SeenAttempts
from dispatcher.inference.slots import ONLINE, CallSlots, Draining
from dispatcher.inference.work_item import MalformedWork, WorkItem
from dispatcher.offset_tracker import OffsetTracker
from dispatcher.task_supervisor import TaskSupervisor
from schemas import topics
from schemas.records import Queue

log = logging.getLogger(__name__)

MAX_TAKE = 32
REVOKE_S = 4.0
"""How long a revoke may hold up the group; what is not claimed by then is run again by the next owner."""
PAUSED = "the queue is paused"
OPENING = 8
"""Groups joined at once: a start with hundreds of queues must not be a storm."""


class QueueConsumer:
    """Take the work of one queue and level whenever there is room for it."""

    def __init__(self, lanes: QueueConsumers, queue: str, level: int, allowance: QueueLimit) -> None:
        self._lanes = lanes
        self.allowance = allowance
        self._level = level
        self.idle = False
        """Whether somebody else serves the queue now: what is still in its topic is passed over."""
        self._heard: dict[int, OffsetTracker] = {}
        topic = lanes.settings.topic(topics.work(queue, level))
        self.reader = GroupConsumer(
            lanes.settings,
            name=f"{lanes.name}-{queue}-{topics.level_name(level)}",
            group=topic,
            topics=[topic],
            on_revoke=self._revoked,
        )
        self.task = lanes.crew.spawn(self._run(), name=f"lane-{topic}")

    async def _run(self) -> None:
        """Take one record more than there is room for at most: the one that waits shows that its level is waiting."""
        lanes = self._lanes
        async with lanes.opening:
            await self.reader.open()
        while True:
            await lanes.gate.passed()
            if not self.idle:
                await self.allowance.passed()
            if lanes.stopping:
                return
            if self.idle:
                for taken in await self.reader.take(MAX_TAKE):
                    taken.claims.settled(taken.record.offset)
                continue
            room = min(lanes.slots.room(self._level), self.allowance.room)
            try:
                for item in await self._taken(room):
                    await self._begin(item)
            except Draining:
                return

    async def _taken(self, room: int) -> list[WorkItem]:
        items: list[WorkItem] = []
        for taken in await self._after_hearing(await self.reader.take(min(max(1, room), MAX_TAKE))):
            item = await self._admitted(taken)
            if item is not None:
                items.append(item)
        if items and self._level == ONLINE:
            self._lanes.pace.online()
        return items

    async def _after_hearing(self, records: list[ReceivedRecord]) -> list[ReceivedRecord]:
        """Learn first what was said of the work of partitions that are newly ours.

        What was revoked meanwhile is left out unsettled: whoever has it now reads it again.
        """
        fresh = [taken for taken in records if self._heard.get(taken.record.partition) is not taken.claims]
        if not fresh:
            return records
        reader = self.reader
        await self._lanes.spoken.heard(
            self._level,
            oldest_ms=min(taken.record.timestamp for taken in fresh),
            given_ms=reader.given_ms,
            given_at=reader.given_at,
        )
        ours = [taken for taken in records if reader.owns(taken)]
        self._heard |= {taken.record.partition: taken.claims for taken in ours}
        return ours

    async def _begin(self, item: WorkItem) -> None:
        """Start an item once there is room for it, or give it back when its queue was paused meanwhile."""
        lanes, allowance = self._lanes, self.allowance
        if not await allowance.take():
            lanes.runner.give_back(item, reason=PAUSED)
            return
        try:
            await lanes.slots.acquire(self._level)
        except BaseException:
            allowance.put_back()
            raise
        if allowance.paused:
            lanes.slots.release(self._level)
            lanes.runner.give_back(item, reason=PAUSED)
        elif (call := lanes.runner.start(item)) is not None:
            call.add_done_callback(lambda _: allowance.put_back())
            return
        allowance.put_back()

    async def _admitted(self, taken: ReceivedRecord) -> WorkItem | None:
        try:
            return self._lanes.runner.admit(taken)
        except MalformedWork as poison:
            await self._bury(taken, poison)
            return None

    async def _bury(self, taken: ReceivedRecord, poison: MalformedWork) -> None:
        record, lanes = taken.record, self._lanes
        metrics.POISON.inc()
        log.error(
            "%s/%d@%d goes to the dead letters: %s",
            record.topic,
            record.partition,
            record.offset,
            poison.message,
            extra={"event": "work_buried", "partition": record.partition, "offset": record.offset},
        )
        await send_to_dead_letters(
            lanes.producer,
            lanes.settings,
            record,
            reason=poison.message,
            field=poison.field,
            attempt=poison.attempt,
        )
        taken.claims.settled(record.offset)

    async def _revoked(self) -> None:
        await self._lanes.ticker.tick([self.reader], Deadline(REVOKE_S), last=True)


class QueueConsumers:
    """All lanes of this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        crew: TaskSupervisor,
        slots: CallSlots,
        gate: IntakeGate,
        pace: AdaptiveLimit,
        spoken: SeenAttempts,
        runner: Runner,
        ticker: CommitLoop,
        producer: Producer,
    ) -> None:
        self.settings = settings
        self.crew = crew
        self.name = name
        self.slots = slots
        self.gate = gate
        self.pace = pace
        self.spoken = spoken
        self.runner = runner
        self.ticker = ticker
        self.producer = producer
        self.opening = asyncio.Semaphore(OPENING)
        self.stopping = False
        self._lanes: dict[str, list[QueueConsumer]] = {}
        self._allowances: dict[str, QueueLimit] = {}

    def add(self, queue: Queue) -> None:
        """Begin to serve a queue, or end it when workers serve it from now on; follow its settings."""
        name = queue["name"]
        allowance = self._allowances.setdefault(name, QueueLimit())
        allowance.set(paused=queue["paused"] and queue["served_by"] != "workers", concurrency=queue["concurrency"])
        if queue["served_by"] == "workers":
            for lane in self._lanes.get(name, ()):
                lane.idle = True
            return
        if self.stopping or name in self._lanes:
            return
        self._lanes[name] = [QueueConsumer(self, name, level, allowance) for level in range(len(topics.LEVELS))]
        metrics.LANES.set(len(self.readers))
        log.info("queue %s is served", name, extra={"event": "lane_opened", "queue": name})

    @property
    def readers(self) -> list[GroupConsumer]:
        """Return the readers of all lanes."""
        return [lane.reader for lanes in self._lanes.values() for lane in lanes]

    @property
    def joined(self) -> bool:
        """Tell whether every lane is a member of its group."""
        return all(reader.assigned for reader in self.readers)

    async def stop_taking(self, deadline: Deadline) -> None:
        """Take nothing more; returns when no lane is at it."""
        self.stopping = True
        self.gate.end()
        for allowance in self._allowances.values():
            allowance.end()
        self.slots.close()
        await self.spoken.close()
        tasks = [lane.task for lanes in self._lanes.values() for lane in lanes]
        if tasks:
            await asyncio.wait(tasks, timeout=deadline.left(1.0))

    async def leave(self, deadline: Deadline) -> None:
        """Leave every group, so that others take over at once."""
        await asyncio.gather(*(reader.close(deadline) for reader in self.readers))
        tasks = [lane.task for lanes in self._lanes.values() for lane in lanes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
