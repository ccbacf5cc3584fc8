"""The scheduler of one lane: takes what Faust reads, folds it in batches and makes each batch durable before its acks.

Order within a batch: (1) results, work, controls and dead letters, awaited; (2) rows and usage, awaited; (3) the
local store; (4) acknowledgements, so that Faust may commit the offsets. So a row never tells of an output that is not
in the log, and an input that is read again after a crash finds its row and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition

from core.dead_letters.record import dead_letter
from core.errors import SessionExpired
from core.kafka.fetching import since
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.record_format import unread
from core.queues import QueueDirectory
from core.settings.models import Settings
from schemas import topics
from schemas.headers import traceparent_of
from schemas.records import Event, Result
from streams import metrics
from streams.batch_transaction import BatchSource
from streams.commit import Committer
from streams.faust.app import INBOX_LIMIT, StateTable
from streams.input_offsets import InputOffsets, Place
from streams.intake.decode import InvalidRecord, Submission, read_event
from streams.intake.gateway import TaskIntake
from streams.offset_gaps import over_gap
from streams.purge import purge
from streams.recovery.buffer import PendingAck, PendingEvent, RecoveryBuffer
from streams.state_index import StateIndex
from streams.state_machine.rows import rules_of
from streams.transaction import StateKey, Transaction

log = logging.getLogger(__name__)

HEARD_POLL_S = 0.05
STUCK_S = 5.0
"""How long a partition may stand still below its end while nothing is being folded."""


class Scheduler:
    """Fold batches of one lane: `offer` takes events from Faust's agent, `run` works until an error ends it."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        producer: Producer,
        lookup: LogReader,
        queues: QueueDirectory,
        index: StateIndex,
        rows: Callable[[], StateTable],
        batches: Callable[[], StateTable],
        silent_s: Callable[[], float] = lambda: 0.0,
        lacks: Callable[[str], bool] = lambda _: False,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Make it.

        `silent_s` tells for how long the consumer group has not confirmed that this process is its member, `lacks`
        which queues have no work topic now.
        """
        self._settings = settings
        self._level = level
        self._producer = producer
        self._lookup = lookup
        self._queues = queues
        self._index = index
        self._rows = rows
        self._batches = batches
        self._shipping = Committer(settings, level, producer=producer, index=index, rows=rows, batches=batches)
        self.written = self._shipping.written
        self._silent_s = silent_s
        self._lacks = lacks
        self._now_ms = now_ms
        self._rules = rules_of(settings)
        self._lease_ms = int(settings.streams.lease_s * 1000)
        self._linger_s = settings.streams.offline_linger_s if level else settings.streams.online_linger_s
        self._tasks = settings.topic(topics.tasks(level))
        self._inbox: deque[Any] = deque()
        self._folding = False
        self._folds = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._last_alive = time.monotonic()
        self.door = TaskIntake(settings, level, producer=producer, queues=queues)
        self.known_results: dict[StateKey, tuple[int, Result]] = {}
        self.progress = InputOffsets()
        self.replay = RecoveryBuffer()
        self.changed = asyncio.Event()
        """Set when a worker appears, goes or changes: the pulse tells at once."""

    async def offer(self, event: Any) -> None:
        """Take one event; waits while the inbox is full."""
        while len(self._inbox) >= INBOX_LIMIT:
            self._room.clear()
            await self._room.wait()
        self._inbox.append(event)
        self._arrived.set()

    async def run(self) -> None:
        """Fold batch after batch; raises FatalError when one cannot be made durable."""
        busy = -math.inf
        while True:
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
            # After a silence there is nothing to gather: what came is folded at once, and what comes meanwhile waits.
            lingers = time.monotonic() - busy < self._linger_s
            if len(self._inbox) < self._settings.streams.batch_records and lingers:
                await asyncio.sleep(self._linger_s)
            batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), self._settings.streams.batch_records))]
            self._room.set()
            began = time.perf_counter()
            self._folding = True
            self._folds += 1
            await self._fold(batch)
            self._folding = False
            busy = time.monotonic()
            metrics.BATCH_SECONDS.labels(topics.LEVELS[self._level]).observe(time.perf_counter() - began)
            metrics.BATCH_RECORDS.labels(topics.LEVELS[self._level]).observe(len(batch))

    def under_way(self) -> int | None:
        """Return the number of the batch that is being folded, None when there is none."""
        return self._folds if self._folding else None

    async def watch_freeze(self) -> None:
        """Notice that the process slept; the session is then lost and somebody else may own the partitions."""
        while True:
            self.check_freeze()
            await asyncio.sleep(0.5)

    async def watch_inputs(self, end: Callable[[Place], int | None]) -> None:
        """Notice records that were never delivered, and end the process, which then begins at the committed offsets."""
        while True:
            await asyncio.sleep(1)
            if self._inbox or self._folding:
                continue
            for place in self.progress.stuck(end, now_s=time.monotonic(), patience_s=STUCK_S):
                await over_gap(self._lookup, self.progress, place, end(place))

    def check_freeze(self) -> None:
        """Raise SessionExpired when the process was suspended longer than its session; also the producer's fence."""
        now = time.monotonic()
        asleep, self._last_alive = now - self._last_alive, now
        if asleep > self._settings.streams.session_timeout_s * 0.9:
            raise SessionExpired(f"the scheduler slept for {asleep:.1f} s, longer than its Kafka session")

    async def _until_heard(self) -> None:
        """Wait for the group's next word when its last is older than a session: others may own the partitions."""
        session_s = self._settings.streams.session_timeout_s
        give_up_s = time.monotonic() + session_s
        while (silent_s := self._silent_s()) > session_s * 0.9:
            if time.monotonic() > give_up_s:
                raise SessionExpired(
                    f"the consumer group has confirmed nothing for {silent_s:.1f} s, longer than its session"
                )
            await asyncio.sleep(HEARD_POLL_S)

    async def _fold(self, batch: list[Any]) -> None:
        decoded = [self._decode(event.message) for event in batch]
        await self.door.prepare(decoded)
        now_ms = self._now_ms()
        rows = self._rows()
        fold = Transaction(
            level=self._level,
            rules=self._rules,
            now_ms=now_ms,
            prefix=self._settings.kafka.topic_prefix,
            row=rows.get,
            known_results=self.known_results,
            work_partitions=self._work_partitions,
            holders=lambda partition, worker: set(self._index.holders.get((partition, worker), ())),
            spoken=self.replay.spoken,
            batches=BatchSource(self._batches().get, self._index.stamp_taken, self._index.batch_retention_ms),
        )
        folded: list[Any] = []
        for event, one in zip(batch, decoded, strict=True):
            folded += self._fold_one(fold, event, one, now_ms)
        await self._bury_lost(fold)
        await self.door.reply(fold)
        self.check_freeze()
        await self._until_heard()
        await self._shipping.ship(fold, now_ms)
        for event in folded:
            message = event.message
            why = unread(message)
            last = message.offset if why is None else why.last
            self.progress.done((message.topic, message.partition), last, since=since(message))
            event.ack()
        self._end_replays({event.message.partition for event in folded})

    def _end_replays(self, partitions: set[int]) -> None:
        """Fold what waited for a task that did not come, once all tasks of its time are folded."""
        for partition in partitions:
            following = self.progress.committable((self._tasks, partition)) or 0
            waited = self.replay.folded(partition, following)
            self._inbox.extendleft(held.source for held in reversed(waited))
            if waited:
                self._arrived.set()

    def _decode(self, message: Any) -> Submission | Event | InvalidRecord:
        if (why := unread(message)) is not None:
            return InvalidRecord(why.reason, None)
        if message.topic == self._tasks:
            return self.door.read(message)
        return read_event(message, max_bytes=self._settings.kafka.max_message_bytes)

    def _fold_one(
        self, fold: Transaction, source: Any, one: Submission | Event | InvalidRecord, now_ms: int
    ) -> list[Any]:
        """Fold one input; returns the inputs that are folded by that, none when it has to wait."""
        message = source.message
        partition = message.partition
        if isinstance(one, Submission):
            admitted = self.door.admit(one, message, fold, now_ms=now_ms)
            if admitted is None:
                return [source]
            one = admitted
        if isinstance(one, InvalidRecord):
            fold.add(dead_letter(self._settings, message, reason=one.reason, field=one.field))
            fold.notes["poison"] += 1
            where = {"partition": partition, "offset": message.offset}
            log.warning(
                "dead letter from %s-%d@%d: %s",
                message.topic,
                *where.values(),
                one.reason,
                extra={"event": "dead_letter", **where},
            )
        elif isinstance(one, Submission):
            fold.submission(one, partition=partition, offset=message.offset)
            waited = self.replay.of_task(partition, one.task_id)
            for held in waited:
                self._task_event(fold, held.source.message, held.event)
            return [source, *(held.source for held in waited)]
        elif not one["id"]:
            self._worker_event(fold, one, partition, now_ms)
        elif self.replay.waits(partition, one) and not fold.knows(partition, one["id"]):
            self.replay.hold(partition, PendingEvent(PendingAck(message), one))
            source.ack()  # for Faust it is over; what is committed is counted by `progress`
            return []
        else:
            self._task_event(fold, message, one)
        return [source]

    def _task_event(self, fold: Transaction, message: Any, event: Event) -> None:
        traceparent = traceparent_of(message.headers)
        fold.event(event, partition=message.partition, offset=message.offset, traceparent=traceparent)

    def _worker_event(self, fold: Transaction, event: Event, partition: int, now_ms: int) -> None:
        worker = event["worker"] or ""
        if event["kind"] == "heartbeat":
            if self._index.heard(
                partition,
                worker,
                now_ms=now_ms,
                seen_ms=event["at_ms"],
                running=event["running"],
                upstreams_up=event["upstreams_up"],
            ):
                self.changed.set()
        elif event["kind"] == "purge":
            folded = self.progress.committable((self._tasks, partition)) or 0
            rows_from, level = self._rows().scan_from, self._level
            purge(fold, rows_from, event, partition, folded=folded, level=level, now_ms=now_ms)
        elif event["kind"] == "goodbye":
            fold.worker_gone(worker, partition=partition, lost=False)
            self._index.gone(partition, worker)
            self.changed.set()
        elif event["kind"] == "worker_lost" and self._index.silent(
            partition, worker, now_ms=now_ms, lease_ms=self._lease_ms
        ):
            # All heartbeats that were written before this event have been read: the silence is real, not our own lag.
            fold.worker_gone(worker, partition=partition, lost=True)
            self._index.gone(partition, worker)
            self.changed.set()
            log.warning("worker %s is lost", worker, extra={"event": "worker_lost", "partition": partition})

    def _work_partitions(self, queue: str) -> int:
        known = self._queues.get(queue)
        if (known is not None and known["served_by"] == "workers") or self._lacks(queue):
            return 0
        return known["work_partitions"] if known else self._settings.kafka.work_partitions

    async def _bury_lost(self, fold: Transaction) -> None:
        """Write the dead letters of tasks that lost too many workers, with their original records."""
        for (partition, task_id), reason in fold.dead:
            row = fold.rows[partition, task_id]
            at = TopicPartition(self._tasks, partition)
            record = await self._lookup.read(at, row["source_offset"]) if row else None
            if record is not None and row is not None:
                fold.add(dead_letter(self._settings, record, reason=reason, attempt=row["attempt"]))
