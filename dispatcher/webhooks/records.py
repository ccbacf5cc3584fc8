"""Records of a delivery: its row, its record in a retry topic, its dead letter, and marks of disabled URLs. Pure."""

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
"""Offset of a dead letter that was not a record before."""


class AttemptRecord(NamedTuple):
    """One attempt with its times."""

    result: AttemptResult
    at_ms: int
    latency_ms: int


def is_subscribed(event: str, events: list[str]) -> bool:
    """Return whether a task's callback subscribes to an event; by default to the outcome only."""
    return event in events if events else event in OUTCOMES


def from_result(result: Result, offset: int, *, now_ms: int, traceparent: str | None = None) -> Delivery:
    """Create the delivery of a result."""
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
    """Create the delivery of a notification."""
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
    """Add an attempt, and set the state and the time that follow from it."""
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


def delivery_row(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Render the delivery row, which the API shows."""
    return deliveries.row(settings, delivery, now_ms=now_ms)


def retry_record(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Render the record of a waiting delivery, for the retry topic that fits its time."""
    delay_s = delay_tier((delivery["due_ms"] or now_ms) - now_ms)
    return deliveries.retry_record(settings, delivery, delay_s=delay_s, now_ms=now_ms)


def delivery_dead_letter(settings: Settings, delivery: Delivery, *, reason: str, now_ms: int) -> AddressedRecord:
    """Render the dead letter of a failed delivery: the record that would start a new round."""
    retry = deliveries.retry_record(settings, resent(delivery, now_ms=now_ms), delay_s=0, now_ms=now_ms)
    record = retry.record
    found = LogRecord(retry.topic, retry.partition, NO_OFFSET, now_ms, record.key, record.value, record.headers)
    return dead_letter(
        settings, found, reason=f"delivery failed: {reason}", field="callback_url", attempt=delivery["made"]
    )


def url_key(owner: str | None, url: str) -> bytes:
    """Return the key under which a tenant's URL is disabled."""
    return f"{owner or ''}/{sha256(url.encode()).hexdigest()}".encode()


def disabled_mark(settings: Settings, delivery: Delivery, *, until_ms: int, now_ms: int) -> AddressedRecord:
    """Render the mark that a URL has answered 410."""
    mark: Delivery = {**delivery, "state": "disabled", "due_ms": until_ms, "payload": None}
    key = url_key(delivery["owner"], delivery["url"])
    return _mark(settings, deliveries.rendered(key, mark, now_ms=now_ms))


def enabled_mark(settings: Settings, delivery: Delivery) -> AddressedRecord:
    """Render the removal of that mark."""
    return _mark(settings, Record(url_key(delivery["owner"], delivery["url"]), None))


def resend_mark(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Render the mark of a resend, which ends earlier rounds; its key has no slash, unlike those of URLs."""
    mark: Delivery = {**delivery, "state": "pending", "due_ms": None, "payload": None, "attempts": []}
    return _mark(settings, deliveries.rendered(delivery["id"].encode(), mark, now_ms=now_ms))


def _mark(settings: Settings, record: Record) -> AddressedRecord:
    return AddressedRecord(settings.topic(topics.DISABLED), DISABLED_PARTITION, record)
