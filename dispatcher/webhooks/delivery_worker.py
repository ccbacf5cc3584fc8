"""One attempt of one delivery, from the wait for a slot of its host to the records that follow from it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from core.clock import Clock, epoch_ms
from core.errors import Unavailable
from core.observability.tracing import tracer
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.event_outbox import EventOutbox
from dispatcher.webhooks import records, tracing
from dispatcher.webhooks.circuit_breaker import CircuitOpen, HostCircuitBreakers, HostSlots
from dispatcher.webhooks.disabled_urls import DisabledUrls, is_manual
from dispatcher.webhooks.http_client import AttemptResult, Disposition, WebhookClient
from dispatcher.webhooks.in_flight import WaitingTasks
from dispatcher.webhooks.payload import DeliveryBodies, ResultGone
from dispatcher.webhooks.records import AttemptRecord
from dispatcher.webhooks.retry_schedule import Random, deferral_ms, give_up_after_ms, next_wait_ms
from dispatcher.webhooks.signature import Signer
from schemas.kafka_record import AddressedRecord
from schemas.records import Delivery, DeliveryState, Result

log = logging.getLogger(__name__)

DISABLED_REASON = "endpoint returned 410 Gone; deliveries to this URL are disabled"
UNREACHABLE_REASON = "gave up: host unreachable for longer than the retry window"
EVENT_HEADER = "x-headrace-event"


class DeliveryWorker:
    """Makes delivery attempts; the result of an attempt is durable when its coroutine returns."""

    def __init__(
        self,
        settings: Settings,
        *,
        client: WebhookClient,
        bodies: DeliveryBodies,
        disabled: DisabledUrls,
        outbox: EventOutbox,
        hosts: HostCircuitBreakers,
        waiting_tasks: WaitingTasks,
        clock: Clock = epoch_ms,
        rng: Random = random.random,
    ) -> None:
        self._settings = settings
        self._webhook_settings = settings.webhooks
        self._signer = Signer(settings.webhooks)
        self._client = client
        self._bodies = bodies
        self._disabled = disabled
        self._outbox = outbox
        self._hosts = hosts
        self._waiting_tasks = waiting_tasks
        self._slots = HostSlots(settings.webhooks.concurrency)
        self._clock = clock
        self._rng = rng

    async def attempt(self, delivery: Delivery, result: Result | None = None) -> None:
        """Make the next attempt, or defer it; with `result` the result need not be read from the log."""
        if self._superseded(delivery):
            return
        if is_manual(delivery):
            with self._waiting_tasks:
                await self._write([records.resend_mark(self._settings, delivery, now_ms=self._clock())])
        until_ms = self._disabled.until_ms(delivery["owner"], delivery["url"])
        if until_ms is not None and until_ms > self._clock() and not delivery["manual"]:
            await self._give_up(delivery, "disabled", DISABLED_REASON)
            return
        host = _host(delivery["url"])
        if self._hosts.open_for_s(host) > 0 or self._hosts.saturated(host):
            await self._defer(delivery)
            return
        try:
            async with AsyncExitStack() as stack:
                with self._waiting_tasks:
                    await stack.enter_async_context(self._hosts.slot(host))
                    await stack.enter_async_context(self._slots.slot(self._hosts.tier(host)))
                attempt = await self._send(delivery, result)
                self._hosts.report(host, attempt.result.health)
        except (CircuitOpen, Unavailable):
            await self._defer(delivery)
        except ResultGone as error:
            await self._give_up(delivery, "failed", error.message)
        else:
            await self._handle_result(delivery, attempt)

    async def requeue(self, delivery: Delivery) -> None:
        """Write a delivery to a retry topic again, to wait for the rest of its time."""
        await self._write([records.retry_record(self._settings, delivery, now_ms=self._clock())])

    async def _send(self, delivery: Delivery, result: Result | None) -> AttemptRecord:
        body = await self._bodies.of(delivery, result)
        at_ms, began = self._clock(), time.monotonic()
        headers = self._signer.headers(body, delivery_id=delivery["id"], owner=delivery["owner"], at_s=at_ms // 1000)
        headers[EVENT_HEADER] = delivery["event"]
        parent = delivery["traceparent"]
        with tracer().span(tracing.METHOD, "client", parent=parent.encode() if parent else None) as span:
            tracing.describe_request(span, delivery)
            if span.traceparent is not None:
                headers["traceparent"] = span.traceparent.decode("latin-1")
            attempt_result = await self._client.post(delivery["url"], body, headers)
            tracing.describe_response(span, attempt_result)
        seconds = time.monotonic() - began
        metrics.DELIVERY_SECONDS.observe(seconds)
        metrics.WEBHOOK_ATTEMPTS.labels(attempt_result.disposition.value).inc()
        if attempt_result.disposition is not Disposition.DELIVERED:
            metrics.WEBHOOK_FAILURES.labels(attempt_result.kind).inc()
        return AttemptRecord(attempt_result, at_ms, int(seconds * 1000))

    async def _handle_result(self, delivery: Delivery, attempt: AttemptRecord) -> None:
        attempt_result, now_ms = attempt.result, self._clock()
        if attempt_result.disposition in (Disposition.RETRY, Disposition.REFUSED) and self._superseded(delivery):
            return  # a manual resend started while this attempt was running: the delivery row belongs to that round
        match attempt_result.disposition:
            case Disposition.DELIVERED:
                await self._delivered(delivery, attempt)
            case Disposition.GONE:
                until_ms = now_ms + self._webhook_settings.gone_ttl_s * 1000
                mark = records.disabled_mark(self._settings, delivery, until_ms=until_ms, now_ms=now_ms)
                ended = records.with_attempt(delivery, attempt, state="disabled", due_ms=None)
                await self._give_up(ended, "disabled", attempt_result.reason, mark)
            case Disposition.REFUSED:
                await self._give_up(
                    records.with_attempt(delivery, attempt, state="failed", due_ms=None),
                    "failed",
                    attempt_result.reason,
                )
            case Disposition.RETRY:
                wait_ms = self._wait_ms(delivery, attempt_result)
                if wait_ms is None:
                    ended = records.with_attempt(delivery, attempt, state="failed", due_ms=None)
                    await self._give_up(ended, "failed", attempt_result.reason)
                    return
                waits = records.with_attempt(delivery, attempt, state="pending", due_ms=now_ms + wait_ms)
                await self._write(
                    [
                        records.retry_record(self._settings, waits, now_ms=now_ms),
                        records.delivery_row(self._settings, waits, now_ms=now_ms),
                    ]
                )

    async def _delivered(self, delivery: Delivery, attempt: AttemptRecord) -> None:
        done = records.with_attempt(delivery, attempt, state="delivered", due_ms=None)
        following = [records.delivery_row(self._settings, done, now_ms=self._clock())]
        if self._disabled.until_ms(delivery["owner"], delivery["url"]) is not None:
            following.append(records.enabled_mark(self._settings, delivery))
        await self._write(following)
        metrics.DELIVERIES.labels("delivered").inc()

    def _superseded(self, delivery: Delivery) -> bool:
        """Return whether a later round replaces this one, which then ends without changing the delivery row."""
        if not self._disabled.resends.is_superseded(delivery):
            return False
        metrics.DELIVERIES.labels("superseded").inc()
        return True

    def _wait_ms(self, delivery: Delivery, attempt_result: AttemptResult) -> int | None:
        """Return the wait before the next attempt; None for progress notifications, which are outdated by then."""
        if delivery["event"] == "progress":
            return None
        return next_wait_ms(
            delivery["step"] + 1,
            self._webhook_settings.retry_delays,
            retry_after_s=attempt_result.retry_after_s,
            rng=self._rng,
        )

    async def _defer(self, delivery: Delivery) -> None:
        """Defer an attempt that could not be made, without counting it; give up after the retry window."""
        now_ms = self._clock()
        age_ms = now_ms - delivery["created_ms"]
        if delivery["event"] == "progress" or age_ms > give_up_after_ms(self._webhook_settings.retry_delays):
            await self._give_up(delivery, "failed", UNREACHABLE_REASON)
            return
        metrics.WEBHOOK_DEFERRED.inc()
        due_ms = now_ms + deferral_ms(age_ms=age_ms, rng=self._rng)
        waits: Delivery = {**delivery, "due_ms": due_ms}
        await self._write(
            [
                records.retry_record(self._settings, waits, now_ms=now_ms),
                records.delivery_row(self._settings, waits, now_ms=now_ms),
            ]
        )

    async def _give_up(self, delivery: Delivery, state: DeliveryState, reason: str, *marks: AddressedRecord) -> None:
        """Give up a delivery: set its state and write a dead letter, except for progress notifications."""
        ended: Delivery = {**delivery, "state": state, "due_ms": None}
        now_ms = self._clock()
        following = [*marks, records.delivery_row(self._settings, ended, now_ms=now_ms)]
        if delivery["event"] != "progress":
            following.append(records.delivery_dead_letter(self._settings, ended, reason=reason, now_ms=now_ms))
            log.warning(
                "webhook delivery for %s failed: %s",
                delivery["task_id"],
                reason,
                extra={"event": "webhook_delivery_failed", "task_id": delivery["task_id"], "attempt": delivery["made"]},
            )
        await self._write(following)
        metrics.DELIVERIES.labels(state).inc()

    async def _write(self, following: Iterable[AddressedRecord]) -> None:
        """Return when all records are durable, however long Kafka is unavailable."""
        await self._outbox.write_all(following)


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
