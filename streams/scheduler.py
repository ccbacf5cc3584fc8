"""The scheduler of one level: processes inputs in batches and commits each batch before its inputs are acknowledged.

Order of a batch: (1) results, work, controls and dead letters; (2) state records and usage; (3) the local store;
(4) acknowledgements, so that Faust may commit the offsets. Each step waits for the one before. A state record therefore
never refers to an output that is not in the log, and an input that is read again after a crash finds its state record
and changes nothing.
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

from core.clock import Clock, epoch_ms
from core.dead_letters.record import dead_letter
from core.errors import SessionExpired
from core.kafka.fetching import since
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.record_format import unread
from core.kafka.task_records import task_of
from core.queues import QueueDirectory
from core.settings.models import Settings
from schemas import topics
from schemas.headers import traceparent_of
from schemas.records import Event, Result
from streams import metrics
from streams.batch_transaction import BatchSource
from streams.commit import Committer
from streams.faust.app import INBOX_LIMIT, StateTable
from streams.input_offsets import InputOffsets, InputPartition
from streams.intake.decode import InvalidRecord, Submission, read_event
from streams.intake.gateway import TaskIntake
from streams.offset_gaps import skip_gap
from streams.purge import purge
from streams.recovery.buffer import PendingAck, PendingEvent, RecoveryBuffer
from streams.state_index import StateIndex
from streams.state_machine.rows import StateKey, rules_of
from streams.transaction import Transaction
from streams.work_topics import WorkTopicState

log = logging.getLogger(__name__)

HEARTBEAT_POLL_S = 0.05
STALL_TIMEOUT_S = 5.0
"""How long a partition may stay below its end while no batch is processed."""


class Scheduler:
    """Processes batches of one level: Faust's agent calls `offer`, `run` processes until an error ends it."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        producer: Producer,
        lookup: LogReader,
        queues: QueueDirectory,
        index: StateIndex,
        rows: StateTable,
        batches: StateTable,
        work_topics: WorkTopicState | None = None,
        seconds_since_heartbeat: Callable[[], float] = lambda: 0.0,
        now_ms: Clock = epoch_ms,
    ) -> None:
        """Create a scheduler; `run` starts it.

        Args:
            rows: state records of tasks.
            batches: state records of batches.
            work_topics: shared with the watcher of the work topics.
            seconds_since_heartbeat: time since the consumer group last confirmed this process as a member.
        """
        self._settings = settings
        self._level = level
        self._producer = producer
        self._lookup = lookup
        self._queues = queues
        self._index = index
        self._rows = rows
        self._batches = batches
        self._work_topics = work_topics or WorkTopicState()
        self._committer = Committer(
            settings,
            level,
            producer=producer,
            index=index,
            rows=rows,
            batches=batches,
            written=self._work_topics.written,
        )
        self._seconds_since_heartbeat = seconds_since_heartbeat
        self._now_ms = now_ms
        self._rules = rules_of(settings)
        self._lease_ms = int(settings.streams.lease_s * 1000)
        self._linger_s = settings.streams.offline_linger_s if level else settings.streams.online_linger_s
        self._tasks = settings.topic(topics.tasks(level))
        self._inbox: deque[Any] = deque()
        self._batch_number = 0
        self._arrived = asyncio.Event()
        self._capacity = asyncio.Event()
        self._last_alive = time.monotonic()
        self.intake = TaskIntake(settings, level, producer=producer, queues=queues)
        self.known_results: dict[StateKey, tuple[int, Result]] = {}
        self.offsets = InputOffsets()
        self.recovery = RecoveryBuffer()
        self.changed = asyncio.Event()
        """Set when a worker joins, leaves or changes, so that the next scheduler heartbeat is sent at once."""

    async def offer(self, event: Any) -> None:
        """Add one event to the inbox; waits while the inbox is full."""
        while len(self._inbox) >= INBOX_LIMIT:
            self._capacity.clear()
            await self._capacity.wait()
        self._inbox.append(event)
        self._arrived.set()

    async def run(self) -> None:
        """Process batch after batch; raises DeliveryFailed when one cannot be committed."""
        busy = -math.inf
        while True:
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
            # After an idle time there is nothing to collect: the first events are processed at once.
            lingers = time.monotonic() - busy < self._linger_s
            if len(self._inbox) < self._settings.streams.batch_records and lingers:
                await asyncio.sleep(self._linger_s)
            batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), self._settings.streams.batch_records))]
            self._capacity.set()
            began = time.perf_counter()
            self._batch_number += 1
            self._work_topics.batch = self._batch_number
            await self._process(batch)
            self._work_topics.batch = None
            busy = time.monotonic()
            metrics.BATCH_SECONDS.labels(topics.LEVELS[self._level]).observe(time.perf_counter() - began)
            metrics.BATCH_RECORDS.labels(topics.LEVELS[self._level]).observe(len(batch))

    async def watch_freeze(self) -> None:
        """Detect a suspended process: its session has expired, and another process may own its partitions."""
        while True:
            self.check_freeze()
            await asyncio.sleep(0.5)

    async def watch_inputs(self, end: Callable[[InputPartition], int | None]) -> None:
        """Detect records that Faust never delivered; the process ends then, to restart at the committed offsets."""
        while True:
            await asyncio.sleep(1)
            if self._inbox or self._work_topics.batch is not None:
                continue
            for place in self.offsets.stalled(end, now_s=time.monotonic(), timeout_s=STALL_TIMEOUT_S):
                await skip_gap(self._lookup, self.offsets, place, end(place))

    def check_freeze(self) -> None:
        """Raise SessionExpired if the process was suspended for longer than its session; also the producer's fence."""
        now = time.monotonic()
        asleep, self._last_alive = now - self._last_alive, now
        if asleep > self._settings.streams.session_timeout_s * 0.9:
            raise SessionExpired(f"the scheduler was suspended for {asleep:.1f} s, longer than its Kafka session")

    async def _await_group_heartbeat(self) -> None:
        """Wait for a group heartbeat if the last is older than a session: another process may own the partitions."""
        session_s = self._settings.streams.session_timeout_s
        give_up_s = time.monotonic() + session_s
        while (silent_s := self._seconds_since_heartbeat()) > session_s * 0.9:
            if time.monotonic() > give_up_s:
                raise SessionExpired(
                    f"the consumer group confirmed no heartbeat for {silent_s:.1f} s, longer than its session"
                )
            await asyncio.sleep(HEARTBEAT_POLL_S)

    async def _process(self, batch: list[Any]) -> None:
        decoded = [self._decode(event.message) for event in batch]
        await self.intake.prepare(decoded)
        now_ms = self._now_ms()
        transaction = Transaction(
            level=self._level,
            rules=self._rules,
            now_ms=now_ms,
            prefix=self._settings.kafka.topic_prefix,
            row=self._rows.get,
            known_results=self.known_results,
            work_partitions=self._work_partitions,
            holders=lambda partition, worker: set(self._index.holders.get((partition, worker), ())),
            was_attempted=self.recovery.was_attempted,
            batches=BatchSource(self._batches.get, self._index.second_in_use, self._index.batch_retention_ms),
        )
        processed: list[Any] = []
        for event, one in zip(batch, decoded, strict=True):
            processed += self._apply_input(transaction, event, one, now_ms)
        await self._add_dead_letters(transaction)
        await self.intake.reply(transaction)
        self.check_freeze()
        await self._await_group_heartbeat()
        await self._committer.commit(transaction, now_ms)
        for event in processed:
            message = event.message
            why = unread(message)
            last = message.offset if why is None else why.last
            self.offsets.done((message.topic, message.partition), last, since=since(message))
            event.ack()
        self._release_waiting({event.message.partition for event in processed})

    def _release_waiting(self, partitions: set[int]) -> None:
        """Process events whose task was not found, once all tasks written before them are processed."""
        for partition in partitions:
            offset = self.offsets.committable((self._tasks, partition)) or 0
            waited = self.recovery.pop_unmatched(partition, offset)
            self._inbox.extendleft(held.source for held in reversed(waited))
            if waited:
                self._arrived.set()

    def _decode(self, message: Any) -> Submission | Event | InvalidRecord:
        if (why := unread(message)) is not None:
            return InvalidRecord(why.reason, None)
        if message.topic == self._tasks:
            return self.intake.read(message)
        return read_event(message, max_bytes=self._settings.kafka.max_message_bytes)

    def _apply_input(
        self, transaction: Transaction, source: Any, one: Submission | Event | InvalidRecord, now_ms: int
    ) -> list[Any]:
        """Apply one input; returns the inputs that are processed by that, none if it has to wait."""
        message = source.message
        partition = message.partition
        if isinstance(one, Submission):
            admitted = self.intake.admit(one, message, transaction, now_ms=now_ms)
            if admitted is None:
                return [source]
            one = admitted
        if isinstance(one, InvalidRecord):
            transaction.add(dead_letter(self._settings, message, reason=one.reason, field=one.field))
            transaction.reasons["poison"] += 1
            where = {"partition": partition, "offset": message.offset}
            log.warning(
                "sent %s/%d@%d to the dead-letter topic: %s",
                message.topic,
                *where.values(),
                one.reason,
                extra={"event": "dead_lettered", **where},
            )
        elif isinstance(one, Submission):
            transaction.submission(one, partition=partition, offset=message.offset)
            waited = self.recovery.pop_task(partition, one.task_id)
            for held in waited:
                self._task_event(transaction, held.source.message, held.event)
            return [source, *(held.source for held in waited)]
        elif not one["id"]:
            self._worker_event(transaction, one, partition, now_ms)
        elif self.recovery.must_wait(partition, one) and not transaction.has_task(partition, one["id"]):
            self.recovery.hold(partition, PendingEvent(PendingAck(message), one))
            source.ack()  # Faust is done with it; `offsets` decides what is committed
            return []
        else:
            self._task_event(transaction, message, one)
        return [source]

    def _task_event(self, transaction: Transaction, message: Any, event: Event) -> None:
        traceparent = traceparent_of(message.headers)
        transaction.event(event, partition=message.partition, offset=message.offset, traceparent=traceparent)

    def _worker_event(self, transaction: Transaction, event: Event, partition: int, now_ms: int) -> None:
        worker = event["worker"] or ""
        if event["kind"] == "heartbeat":
            if self._index.record_heartbeat(
                partition,
                worker,
                now_ms=now_ms,
                seen_ms=event["at_ms"],
                running=event["running"],
                upstreams_up=event["upstreams_up"],
            ):
                self.changed.set()
        elif event["kind"] == "purge":
            processed = self.offsets.committable((self._tasks, partition)) or 0
            rows_from, level = self._rows.scan_from, self._level
            purge(transaction, rows_from, event, partition, processed=processed, level=level, now_ms=now_ms)
        elif event["kind"] == "goodbye":
            transaction.worker_lost(worker, partition=partition, lost=False)
            self._index.remove_worker(partition, worker)
            self.changed.set()
        elif event["kind"] == "worker_lost" and self._index.is_expired(
            partition, worker, now_ms=now_ms, lease_ms=self._lease_ms
        ):
            # All heartbeats written before this event have been read, so the scheduler's own lag is no explanation.
            transaction.worker_lost(worker, partition=partition, lost=True)
            self._index.remove_worker(partition, worker)
            self.changed.set()
            log.warning("worker %s is lost", worker, extra={"event": "worker_lost", "partition": partition})

    def _work_partitions(self, queue: str) -> int:
        known = self._queues.get(queue)
        if (known is not None and known["served_by"] == "workers") or queue in self._work_topics.missing:
            return 0
        return known["work_partitions"] if known else self._settings.kafka.work_partitions

    async def _add_dead_letters(self, transaction: Transaction) -> None:
        """Add dead letters for tasks that lost too many workers, with their original records."""
        for (partition, task_id), reason in transaction.dead_letters:
            row = transaction.rows[partition, task_id]
            at = TopicPartition(self._tasks, partition)
            record = await self._lookup.read(at, row["source_offset"]) if row else None
            if record is not None and row is not None and task_of(record, task_id) is not None:
                transaction.add(dead_letter(self._settings, record, reason=reason, attempt=row["attempt"]))
