"""The webhook component: posts the result of every task with a callback URL, at least once, and notifications.

Four consumers share one delivery worker: results (the first attempt), retry topics (all further attempts), status rows
(notifications) and batches (their ends). An offset is committed only when everything that follows from its record is
durable: the delivery row, a record in a retry topic, or a dead letter.
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
from dispatcher.webhooks.circuit_breaker import HostCircuitBreakers
from dispatcher.webhooks.delivered_index import DeliveredIndex
from dispatcher.webhooks.delivery_worker import DeliveryWorker
from dispatcher.webhooks.disabled_urls import DisabledUrls
from dispatcher.webhooks.http_client import WebhookClient
from dispatcher.webhooks.in_flight import InFlightDeliveries, WaitingTasks
from dispatcher.webhooks.notifications import NotifiedBatches, ProgressNotifications, batch_notification
from dispatcher.webhooks.payload import DeliveryBodies
from dispatcher.webhooks.retry_schedule import MIN_DEFERRAL_MS
from dispatcher.webhooks.retry_topics import RetryTopicConsumer
from schemas import topics
from schemas.codec import DELIVERY, RESULT, STATUS, SchemaError
from schemas.framing import FramingError
from schemas.headers import CALLBACK_EVENTS, find, traceparent_of
from schemas.records import Delivery

log = logging.getLogger(__name__)

GROUP, STATUS_GROUP, BATCH_GROUP, RETRY_GROUP = "webhooks", "webhooks-news", "webhooks-batches", retry_topics.GROUP
MAX_POLL_RECORDS = 200
MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES = 1_000, 67_108_864
"""Maximum deliveries in flight per consumer: polling waits for them, so memory does not grow with the undelivered."""
MAX_RETRIES_IN_FLIGHT = 4_000
POLL_LOOPS = 4
POLL_PAUSE_S = 0.05
"""Pause after a poll with records: most tasks have no callback, and a fetch for each took CPU from running calls."""


class DeliveryOutbox(EventOutbox):
    """The outbox of this component, without the gauge, which belongs to the outbox of the inference component."""

    def _notify_capacity(self) -> None:
        self._on_capacity(self.has_capacity)


class WebhookService:
    """Runs the consumers."""

    name = "sender"

    def __init__(
        self, settings: Settings, *, name: str, supervisor: TaskSupervisor, producer: Producer, blobs: BlobStore
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._producer = producer
        self._client = WebhookClient(settings.webhooks, callback_policy(settings))
        self._hosts = HostCircuitBreakers(settings.webhooks.per_host)
        self._log_reader = LogReader(settings, name=name)
        self._delivered = DeliveredIndex(settings, self._log_reader)
        self._bodies = DeliveryBodies(settings, log_reader=self._log_reader, blobs=blobs)
        self._disabled = DisabledUrls(settings, name=name)
        self._outbox = DeliveryOutbox(producer)
        self._waiting_tasks = WaitingTasks()
        self._worker = DeliveryWorker(
            settings,
            client=self._client,
            bodies=self._bodies,
            disabled=self._disabled,
            outbox=self._outbox,
            hosts=self._hosts,
            waiting_tasks=self._waiting_tasks,
        )
        self._progress_notifications = ProgressNotifications()
        self._notified_batches = NotifiedBatches()
        self._result_deliveries, self._progress_deliveries, self._batch_deliveries, self._retry_deliveries = (
            InFlightDeliveries(
                limit, MAX_IN_FLIGHT_BYTES, waiting_tasks=self._waiting_tasks, on_crash=self._dead_letter
            )
            for limit in (MAX_IN_FLIGHT, MAX_IN_FLIGHT, MAX_IN_FLIGHT, MAX_RETRIES_IN_FLIGHT)
        )
        levels = range(len(topics.LEVELS))
        self._result_consumer = self._group_consumer(
            name, GROUP, [*map(topics.results, levels)], self._result_deliveries
        )
        self._status_consumer = self._group_consumer(
            f"{name}-statuses", STATUS_GROUP, [*map(topics.status, levels)], self._progress_deliveries
        )
        self._batch_consumer = self._group_consumer(
            f"{name}-batches", BATCH_GROUP, [topics.BATCHES], self._batch_deliveries
        )
        self._retry_consumer = RetryTopicConsumer(settings, name=f"{name}-retry", on_revoke=self._on_retries_revoked)
        self._lag = lag.LagTracker(self._log_reader, self._retry_consumer.heads)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start delivering; raises Unavailable."""
        await self._open_log_reader()
        await self._disabled.open()
        self._outbox.start(self._supervisor)
        self._tasks = [
            self._supervisor.spawn(self._poll_results(), name="webhooks"),
            self._supervisor.spawn(self._poll_statuses(), name="webhooks-statuses"),
            self._supervisor.spawn(self._poll_batches(), name="webhooks-batches"),
            self._supervisor.spawn(self._poll_retries(), name="webhooks-retry"),
            *(
                self._supervisor.spawn(self._commit(consumer), name=f"webhooks-commit-{number}")
                for number, consumer in enumerate(self._consumers)
            ),
            self._supervisor.spawn(self._export_periodically(), name="webhooks-metrics"),
            self._supervisor.spawn(self._lag.run(), name="webhooks-lag"),
        ]

    async def _open_log_reader(self) -> None:
        """Connect with retries: a busy broker must not end the process, which may run inference as well."""
        levels, waits = range(len(topics.LEVELS)), map(topics.retry, topics.RETRY_DELAYS_S)
        read = [*map(topics.results, levels), topics.DELIVERIES, *waits]
        names = [self._settings.topic(name) for name in read]
        await self._log_reader.open_with_retry(names)

    async def close(self, deadline: Deadline) -> None:
        """Finish running attempts within the deadline; the others are made by another process, or later."""
        self._stopping = True
        for in_flight in self._in_flight:
            in_flight.stop()
        if self._tasks:
            await asyncio.wait(self._tasks[:POLL_LOOPS], timeout=deadline.left(1.0))
        await asyncio.gather(*(in_flight.drain(deadline.left() - 1.0) for in_flight in self._in_flight))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._outbox.close(Deadline(deadline.left(0.5)))
        await asyncio.gather(*(consumer.commit(deadline) for consumer in self._consumers))
        await asyncio.gather(*(consumer.close(deadline) for consumer in self._consumers))
        await self._client.close()
        await self._disabled.close()
        await self._log_reader.close()

    @property
    def _consumers(self) -> tuple[GroupConsumer | RetryTopicConsumer, ...]:
        return self._result_consumer, self._status_consumer, self._batch_consumer, self._retry_consumer

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return whether results and retries are consumed."""
        joined = all(
            consumer.assigned
            for consumer in (self._result_consumer, self._retry_consumer, self._status_consumer, self._batch_consumer)
        )
        missing = [] if joined else ["results are not consumed yet"]
        return joined, {"missing": missing, "pending": sum(len(in_flight) for in_flight in self._in_flight)}

    @property
    def _in_flight(self) -> tuple[InFlightDeliveries, ...]:
        return self._result_deliveries, self._progress_deliveries, self._batch_deliveries, self._retry_deliveries

    def _group_consumer(
        self, name: str, group: str, names: Sequence[str], in_flight: InFlightDeliveries
    ) -> GroupConsumer:
        async def revoked() -> None:
            await in_flight.drain()
            await consumer.commit()

        consumer = GroupConsumer(
            self._settings,
            name=name,
            group=self._settings.topic(group),
            topics=[*map(self._settings.topic, names)],
            on_revoke=revoked,
        )
        return consumer

    async def _on_retries_revoked(self) -> None:
        await self._retry_deliveries.drain()
        await self._retry_consumer.commit()

    async def _poll_results(self) -> None:
        while not self._stopping:
            room = await self._result_deliveries.wait_for_capacity()
            for received in (found := await self._result_consumer.poll(min(room, MAX_POLL_RECORDS))):
                await self._handle_result(received)
            await self._pause(found)

    async def _poll_statuses(self) -> None:
        while not self._stopping:
            room = await self._progress_deliveries.wait_for_capacity()
            for received in (found := await self._status_consumer.poll(min(room, MAX_POLL_RECORDS))):
                await self._handle_status(received)
            await self._pause(found)

    async def _pause(self, found: list[ReceivedRecord]) -> None:
        if 0 < len(found) < MAX_POLL_RECORDS and not self._stopping:
            await asyncio.sleep(POLL_PAUSE_S)

    async def _poll_batches(self) -> None:
        while not self._stopping:
            room = await self._batch_deliveries.wait_for_capacity()
            for received in await self._batch_consumer.poll(min(room, MAX_POLL_RECORDS)):
                await self._handle_batch(received)

    async def _poll_retries(self) -> None:
        while not self._stopping:
            await self._retry_deliveries.wait_for_capacity()
            for received in await self._retry_consumer.poll():
                await self._handle_retry(received)

    async def _handle_result(self, received: ReceivedRecord) -> None:
        record = received.record
        if (why := unread(record)) is not None:
            await self._dead_letter(received, why.reason)
            return
        try:
            result = RESULT.decode(record.value or b"")
        except (FramingError, SchemaError) as error:
            await self._dead_letter(received, f"invalid result record: {error}")
            return
        notified = result["callback_url"] is not None and result["mode"] != "batch"
        if not notified or not records.is_subscribed(result["state"], result["callback_events"]):
            received.tracker.completed(record.offset)
            return
        parent = (traceparent_of(record.headers) or b"").decode() or None
        delivery = records.from_result(result, record.offset, now_ms=epoch_ms(), traceparent=parent)
        if await self._delivered.delivered(received, delivery):
            received.tracker.completed(record.offset)
            return
        self._result_deliveries.start(
            received, delivery, self._worker.attempt(delivery, result), size=len(record.value)
        )

    async def _handle_status(self, received: ReceivedRecord) -> None:
        record = received.record
        if not skip_unreadable([record]) or record.value is None or find(record.headers, CALLBACK_EVENTS) is None:
            received.tracker.completed(record.offset)
            return
        try:
            found = self._progress_notifications.due_for(STATUS.decode(record.value), now_ms=epoch_ms())
        except (FramingError, SchemaError):
            found = []  # written by the scheduler only; an unreadable row causes no notification and no dead letter
        if not found:
            received.tracker.completed(record.offset)
            return
        self._progress_deliveries.start(received, found[0], self._attempt_all(found), size=len(record.value))

    async def _handle_batch(self, received: ReceivedRecord) -> None:
        record = received.record
        try:
            readable = record.value and skip_unreadable([record])
            delivery = batch_notification(record.value, now_ms=epoch_ms()) if readable else None
        except (FramingError, SchemaError, IndexError):
            delivery = None  # written by the scheduler only, like the status rows
        if (
            delivery is None
            or not self._notified_batches.is_new(delivery["id"], received.tracker)
            or await self._delivered.delivered(received, delivery)
        ):
            received.tracker.completed(record.offset)
            return
        self._batch_deliveries.start(received, delivery, self._worker.attempt(delivery), size=len(record.value))

    async def _attempt_all(self, found: list[Delivery]) -> None:
        for delivery in found:
            await self._worker.attempt(delivery)

    async def _handle_retry(self, received: ReceivedRecord) -> None:
        if (why := unread(received.record)) is not None:
            await self._dead_letter(received, why.reason)
            return
        try:
            delivery = DELIVERY.decode(received.record.value or b"")
        except (FramingError, SchemaError) as error:
            await self._dead_letter(received, f"invalid delivery record: {error}")
            return
        self._retry_deliveries.start(
            received, delivery, self._wait_and_attempt(delivery), size=len(received.record.value)
        )

    async def _wait_and_attempt(self, delivery: Delivery) -> None:
        """Wait for the rest of a delivery's time, in Kafka when it is long, then make the attempt."""
        left_ms = (delivery["due_ms"] or 0) - epoch_ms()
        if left_ms > MIN_DEFERRAL_MS:
            await self._worker.requeue(delivery)
            return
        if left_ms > 0:
            with self._waiting_tasks:
                await asyncio.sleep(left_ms / 1000)
        await self._worker.attempt(delivery)

    async def _dead_letter(self, received: ReceivedRecord, reason: str) -> None:
        """Send an unusable record to the dead letters; returns once that is durable."""
        await send_to_dead_letters(self._producer, self._settings, received.record, reason=reason)
        received.tracker.completed(received.record.offset)

    async def _commit(self, consumer: GroupConsumer | RetryTopicConsumer) -> None:
        """Commit periodically; a task per consumer, because a hanging commit must not delay the others."""
        while True:
            await asyncio.sleep(self._settings.dispatcher.commit_interval_s)
            await consumer.commit()

    async def _export_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._settings.dispatcher.commit_interval_s)
            self._export_metrics()

    def _export_metrics(self) -> None:
        lag.export_lag(self._in_flight, self._lag)
        metrics.WEBHOOK_CIRCUITS_OPEN.set(self._hosts.open_count())
        metrics.WEBHOOK_URLS_DISABLED.set(len(self._disabled))
