"""What the sender writes of a delivery: its row, its place in a retry topic, its dead letter, marks of 410. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from core import deliveries
from core.dead_letters.record import dead_letter
from core.deliveries import OUTCOMES, new_delivery, resent
from core.kafka.log_reader import LogRecord
from core.kafka.producer import Record
from core.settings.models import Settings
from dispatcher.webhooks.http_client import AttemptResult
from dispatcher.webhooks.retry_schedule import delay_tier
from schemas import topics
from schemas.kafka_record import AddressedRecord
from schemas.records import AttemptSummary, Delivery, DeliveryState, Result, Status

MAX_ATTEMPTS_STORED = 20
DISABLED_PARTITION = 0
NO_OFFSET = -1
"""Offset of a dead letter that was no record before."""


class AttemptRecord(NamedTuple):
    """One attempt with its times."""

    result: AttemptResult
    at_ms: int
    latency_ms: int


def is_subscribed(event: str, events: list[str]) -> bool:
    """Tell whether a task's callback is told of an event; without a choice of the outcome alone."""
    return event in events if events else event in OUTCOMES


def from_result(result: Result, offset: int, *, now_ms: int, traceparent: str | None = None) -> Delivery:
    """Begin the delivery of an outcome."""
    event = result["state"]
    return new_delivery(
        result["id"],
        event,
        name=event,
        url=result["callback_url"] or "",
        owner=result["owner"],
        level=result["level"],
        result_offset=offset,
        payload=None,
        now_ms=now_ms,
        traceparent=traceparent,
    )


def from_status(row_: Status, event: str, name: str, payload: bytes, *, now_ms: int) -> Delivery:
    """Begin the delivery of news."""
    return new_delivery(
        row_["id"],
        event,
        name=name,
        url=row_["callback_url"] or "",
        owner=row_["owner"],
        level=row_["level"],
        result_offset=None,
        payload=payload,
        now_ms=now_ms,
        traceparent=row_["traceparent"],
    )


def with_attempt(delivery: Delivery, attempt: AttemptRecord, *, state: DeliveryState, due_ms: int | None) -> Delivery:
    """Note an attempt and what follows."""
    answer = attempt.result
    note: AttemptSummary = {
        "at_ms": attempt.at_ms,
        "status_code": answer.status,
        "latency_ms": attempt.latency_ms,
        "reason": answer.reason,
    }
    return {
        **delivery,
        "state": state,
        "attempts": [*delivery["attempts"], note][-MAX_ATTEMPTS_STORED:],
        "made": delivery["made"] + 1,
        "step": delivery["step"] + 1,
        "due_ms": due_ms,
    }


def row(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Address what everybody can see of a delivery."""
    return deliveries.row(settings, delivery, now_ms=now_ms)


def waiting(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Address a delivery that waits to the retry topic that its time fits."""
    delay_s = delay_tier((delivery["due_ms"] or now_ms) - now_ms)
    return deliveries.retry_record(settings, delivery, delay_s=delay_s, now_ms=now_ms)


def delivery_dead_letter(settings: Settings, delivery: Delivery, *, reason: str, now_ms: int) -> AddressedRecord:
    """Address the dead letter of a delivery that was given up: as the record that would begin a new round."""
    round_ = deliveries.retry_record(settings, resent(delivery, now_ms=now_ms), delay_s=0, now_ms=now_ms)
    record = round_.record
    found = LogRecord(round_.topic, round_.partition, NO_OFFSET, now_ms, record.key, record.value, record.headers)
    return dead_letter(
        settings, found, reason=f"callback given up: {reason}", field="callback_url", attempt=delivery["made"]
    )


def url_key(owner: str | None, url: str) -> bytes:
    """Return the key under which a tenant's URL is disabled."""
    return f"{owner or ''}/{sha256(url.encode()).hexdigest()}".encode()


def disabled(settings: Settings, delivery: Delivery, *, until_ms: int, now_ms: int) -> AddressedRecord:
    """Address the mark that a URL has answered 410."""
    mark: Delivery = {**delivery, "state": "disabled", "due_ms": until_ms, "payload": None}
    key = url_key(delivery["owner"], delivery["url"])
    return _mark(settings, deliveries.rendered(key, mark, now_ms=now_ms))


def enabled(settings: Settings, delivery: Delivery) -> AddressedRecord:
    """Address the end of that mark."""
    return _mark(settings, Record(url_key(delivery["owner"], delivery["url"]), None))


def resend_mark(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Address the mark that ends earlier rounds; its key has no slash, unlike those of the URLs."""
    mark: Delivery = {**delivery, "state": "pending", "due_ms": None, "payload": None, "attempts": []}
    return _mark(settings, deliveries.rendered(delivery["id"].encode(), mark, now_ms=now_ms))


def _mark(settings: Settings, record: Record) -> AddressedRecord:
    return AddressedRecord(settings.topic(topics.DISABLED), DISABLED_PARTITION, record)
