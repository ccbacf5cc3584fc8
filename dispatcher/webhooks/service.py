"""The callback sender: posts the outcome of every task that named a callback, at least once, and other news on demand.

Four readers feed one courier: results (the first attempt), the retry topics (all others), rows (news), batches (their
ends). An offset is committed only when what follows from its record is durable: the row of a delivery, its place in a
retry topic, or a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from core.clock import Deadline, epoch_ms
from core.dead_letters.record import send_to_dead_letters
from core.kafka.fetching import skip_unreadable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.kafka.record_format import unread
from core.settings.callback_policy import callback_policy
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from dispatcher import metrics
from dispatcher.event_outbox import EventOutbox
from dispatcher.group_consumer import GroupConsumer, ReceivedRecord
from dispatcher.task_supervisor import TaskSupervisor
from dispatcher.webhooks import lag, records, retry_topics
from dispatcher.webhooks.batch_notifications import NotifiedBatches, of_batch_row
from dispatcher.webhooks.bodies import DeliveryBodies
from dispatcher.webhooks.circuit_breaker import HostCircuitBreakers
from dispatcher.webhooks.delivered_index import DeliveredIndex
from dispatcher.webhooks.delivery_worker import DeliveryWorker
from dispatcher.webhooks.disabled_urls import DisabledUrls
from dispatcher.webhooks.http_client import WebhookClient
from dispatcher.webhooks.in_flight import InFlightDeliveries, WaitingTasks
from dispatcher.webhooks.retry_schedule import MIN_DEFERRAL_MS
from dispatcher.webhooks.retry_topics import RetryTopicConsumer
from dispatcher.webhooks.task_notifications import HEADER, ProgressNotifications
from schemas import topics
from schemas.codec import DELIVERY, RESULT, STATUS, SchemaError
from schemas.framing import FramingError
from schemas.headers import find, traceparent_of
from schemas.records import Delivery

log = logging.getLogger(__name__)

GROUP, NEWS_GROUP, BATCH_GROUP, RETRY_GROUP = "webhooks", "webhooks-news", "webhooks-batches", retry_topics.GROUP
TAKE = 200
FIRST_RECORDS, FIRST_BYTES = 1_000, 67_108_864
"""How many results may be in hand: the reading waits for them, so memory does not grow with what is undelivered."""
RETRY_RECORDS = 4_000
READERS = 4
REST_S = 0.05
"""After records came: nearly all name no callback, and fetching each for itself took CPU from the calls under way."""


class DeliveryOutbox(EventOutbox):
    """The sender's own outbox; the gauge is of the other, which holds outcomes of calls."""

    def _tell(self) -> None:
        self._on_room(self.room)


class WebhookService:
    """Run the readers."""

    def __init__(
        self, settings: Settings, *, name: str, crew: TaskSupervisor, producer: Producer, blobs: BlobStore
    ) -> None:
        self._settings = settings
        self._crew = crew
        self._producer = producer
        self._poster = WebhookClient(settings.webhooks, callback_policy(settings))
        self._hosts = HostCircuitBreakers(settings.webhooks.per_host)
        self._lookup = LogReader(settings, name=name)
        self._known = DeliveredIndex(settings, self._lookup)
        self._bodies = DeliveryBodies(settings, lookup=self._lookup, blobs=blobs)
        self._disabled = DisabledUrls(settings, name=name)
        self._outbox = DeliveryOutbox(producer)
        self._idle = WaitingTasks()
        self._courier = DeliveryWorker(
            settings,
            poster=self._poster,
            bodies=self._bodies,
            disabled=self._disabled,
            outbox=self._outbox,
            hosts=self._hosts,
            idle=self._idle,
        )
        self._news = ProgressNotifications()
        self._notified_batches = NotifiedBatches()
        self._first, self._told, self._ended, self._retried = (
            InFlightDeliveries(most, FIRST_BYTES, idle=self._idle, crashed=self._bury)
            for most in (FIRST_RECORDS, FIRST_RECORDS, FIRST_RECORDS, RETRY_RECORDS)
        )
        levels = range(len(topics.LEVELS))
        self._results = self._reader(name, GROUP, [*map(topics.results, levels)], self._first)
        self._rows = self._reader(f"{name}-news", NEWS_GROUP, [*map(topics.status, levels)], self._told)
        self._batches = self._reader(f"{name}-batches", BATCH_GROUP, [topics.BATCHES], self._ended)
        self._retries = RetryTopicConsumer(settings, name=f"{name}-retry", on_revoke=self._on_retries_revoked)
        self._backlog = lag.LagTracker(self._lookup, self._retries.heads)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin to deliver; raises Unavailable."""
        await self._open_lookup()
        await self._disabled.open()
        self._outbox.start(self._crew)
        self._tasks = [
            self._crew.spawn(self._read_results(), name="webhooks"),
            self._crew.spawn(self._read_rows(), name="webhooks-news"),
            self._crew.spawn(self._read_batches(), name="webhooks-batches"),
            self._crew.spawn(self._read_retries(), name="webhooks-retry"),
            self._crew.spawn(self._commit(), name="webhooks-commit"),
            self._crew.spawn(self._backlog.run(), name="webhooks-backlog"),
        ]

    async def _open_lookup(self) -> None:
        """Connect, more than once when the broker is busy: the inference consumers beside must not end for it."""
        levels, waits = range(len(topics.LEVELS)), map(topics.retry, topics.RETRY_DELAYS_S)
        read = [*map(topics.results, levels), topics.DELIVERIES, *waits]
        names = [self._settings.topic(name) for name in read]
        await self._lookup.open_with_retry(names)

    async def close(self, deadline: Deadline) -> None:
        """Finish the attempts under way as far as the deadline allows; the rest is delivered by another, or later."""
        self._stopping = True
        for hands in self._all:
            hands.stop()
        if self._tasks:
            await asyncio.wait(self._tasks[:READERS], timeout=deadline.left(1.0))
        await asyncio.gather(*(hands.let_go(deadline.left() - 1.0) for hands in self._all))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._outbox.close(Deadline(deadline.left(0.5)))
        readers = (self._results, self._rows, self._batches, self._retries)
        await asyncio.gather(*(reader.commit(deadline) for reader in readers))
        await asyncio.gather(*(reader.close(deadline) for reader in readers))
        await self._poster.close()
        await self._disabled.close()
        await self._lookup.close()

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Tell whether results and retries are read."""
        joined = all(reader.assigned for reader in (self._results, self._retries, self._rows, self._batches))
        missing = [] if joined else ["the results are not read yet"]
        return joined, {"missing": missing, "pending": sum(len(hands) for hands in self._all)}

    @property
    def _all(self) -> tuple[InFlightDeliveries, ...]:
        return self._first, self._told, self._ended, self._retried

    def _reader(self, name: str, group: str, names: Sequence[str], hands: InFlightDeliveries) -> GroupConsumer:
        async def revoked() -> None:
            await hands.let_go()
            await reader.commit()

        reader = GroupConsumer(
            self._settings,
            name=name,
            group=self._settings.topic(group),
            topics=[*map(self._settings.topic, names)],
            on_revoke=revoked,
        )
        return reader

    async def _on_retries_revoked(self) -> None:
        await self._retried.let_go()
        await self._retries.commit()

    async def _read_results(self) -> None:
        while not self._stopping:
            room = await self._first.room()
            for taken in (found := await self._results.take(min(room, TAKE))):
                await self._result(taken)
            await self._rest(found)

    async def _read_rows(self) -> None:
        while not self._stopping:
            room = await self._told.room()
            for taken in (found := await self._rows.take(min(room, TAKE))):
                await self._row(taken)
            await self._rest(found)

    async def _rest(self, found: list[ReceivedRecord]) -> None:
        if 0 < len(found) < TAKE and not self._stopping:
            await asyncio.sleep(REST_S)

    async def _read_batches(self) -> None:
        while not self._stopping:
            room = await self._ended.room()
            for taken in await self._batches.take(min(room, TAKE)):
                await self._batch(taken)

    async def _read_retries(self) -> None:
        while not self._stopping:
            await self._retried.room()
            for taken in await self._retries.take():
                await self._retry(taken)

    async def _result(self, taken: ReceivedRecord) -> None:
        record = taken.record
        if (why := unread(record)) is not None:
            await self._bury(taken, why.reason)
            return
        try:
            result = RESULT.decode(record.value or b"")
        except (FramingError, SchemaError) as error:
            await self._bury(taken, f"no result record: {error}")
            return
        told = result["callback_url"] is not None and result["mode"] != "batch"
        if not told or not records.wanted(result["state"], result["callback_events"]):
            taken.claims.settled(record.offset)
            return
        parent = (traceparent_of(record.headers) or b"").decode() or None
        delivery = records.of_result(result, record.offset, now_ms=epoch_ms(), traceparent=parent)
        if await self._known.delivered(taken, delivery):
            taken.claims.settled(record.offset)
            return
        self._first.take(taken, delivery, self._courier.deliver(delivery, result), size=len(record.value))

    async def _row(self, taken: ReceivedRecord) -> None:
        record = taken.record
        if not skip_unreadable([record]) or record.value is None or find(record.headers, HEADER) is None:
            taken.claims.settled(record.offset)
            return
        try:
            found = self._news.of(STATUS.decode(record.value), now_ms=epoch_ms())
        except (FramingError, SchemaError):
            found = []  # the scheduler's own topic; a row that cannot be read is no news, and no dead letter either
        if not found:
            taken.claims.settled(record.offset)
            return
        self._told.take(taken, found[0], self._tell(found), size=len(record.value))

    async def _batch(self, taken: ReceivedRecord) -> None:
        record = taken.record
        try:
            readable = record.value and skip_unreadable([record])
            delivery = of_batch_row(record.value, now_ms=epoch_ms()) if readable else None
        except (FramingError, SchemaError, IndexError):
            delivery = None  # the scheduler's own topic, as that of the rows
        if (
            delivery is None
            or not self._notified_batches.is_new(delivery["id"], taken.claims)
            or await self._known.delivered(taken, delivery)
        ):
            taken.claims.settled(record.offset)
            return
        self._ended.take(taken, delivery, self._courier.deliver(delivery), size=len(record.value))

    async def _tell(self, found: list[Delivery]) -> None:
        for delivery in found:
            await self._courier.deliver(delivery)

    async def _retry(self, taken: ReceivedRecord) -> None:
        if (why := unread(taken.record)) is not None:
            await self._bury(taken, why.reason)
            return
        try:
            delivery = DELIVERY.decode(taken.record.value or b"")
        except (FramingError, SchemaError) as error:
            await self._bury(taken, f"no delivery record: {error}")
            return
        self._retried.take(taken, delivery, self._again(delivery), size=len(taken.record.value))

    async def _again(self, delivery: Delivery) -> None:
        """Wait the rest of a delivery's time, in Kafka when it is long."""
        left_ms = (delivery["due_ms"] or 0) - epoch_ms()
        if left_ms > MIN_DEFERRAL_MS:
            await self._courier.hop(delivery)
            return
        if left_ms > 0:
            with self._idle:
                await asyncio.sleep(left_ms / 1000)
        await self._courier.deliver(delivery)

    async def _bury(self, taken: ReceivedRecord, reason: str) -> None:
        """Put a record aside that nobody can work with; returns once that is durable."""
        await send_to_dead_letters(self._producer, self._settings, taken.record, reason=reason)
        taken.claims.settled(taken.record.offset)

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(self._settings.dispatcher.commit_interval_s)
            for reader in (self._results, self._rows, self._batches, self._retries):
                await reader.commit()
            self._measure()

    def _measure(self) -> None:
        lag.measure(self._all, self._backlog)
        metrics.WEBHOOK_CLOSED.set(self._hosts.closed())
        metrics.WEBHOOK_DISABLED.set(len(self._disabled))
