"""Webhook deliveries as records: how a delivery starts, and the partitions of its records. Pure."""

from __future__ import annotations

from core.settings.models import Settings
from schemas import ids, topics
from schemas.codec import DELIVERY
from schemas.headers import headers
from schemas.kafka_record import AddressedRecord, Record
from schemas.partitioning import stable_hash
from schemas.records import Delivery

OUTCOMES = ("completed", "failed", "cancelled")
BATCH_OUTCOMES = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")


def new_delivery(
    task_id: str,
    event: str,
    *,
    name: str,
    url: str,
    owner: str | None,
    level: int,
    result_offset: int | None,
    payload: bytes | None,
    now_ms: int,
    traceparent: str | None = None,
) -> Delivery:
    """Return a new delivery; `name` distinguishes several deliveries of one task in the webhook-id."""
    return {
        "id": f"{task_id}-{name}",
        "task_id": task_id,
        "event": event,
        "state": "pending",
        "url": url,
        "owner": owner,
        "level": level,
        "result_offset": result_offset,
        "payload": payload,
        "attempts": [],
        "made": 0,
        "step": 0,
        "created_ms": now_ms,
        "due_ms": now_ms,
        "manual": False,
        "traceparent": traceparent,
    }


def resent(delivery: Delivery, *, now_ms: int) -> Delivery:
    """Return a manually requested resend: due immediately, even if the URL has answered 410."""
    return {**delivery, "state": "pending", "step": 0, "created_ms": now_ms, "due_ms": now_ms, "manual": True}


def row_key(task_id: str, event: str) -> bytes:
    """Return the record key of a delivery's state."""
    return f"{task_id}/{event}".encode()


def row(settings: Settings, delivery: Delivery, *, now_ms: int) -> AddressedRecord:
    """Return the state record of a delivery, which the API shows."""
    home = ids.partition_of(delivery["task_id"])
    key = row_key(delivery["task_id"], delivery["event"])
    return AddressedRecord(settings.topic(topics.DELIVERIES), home, rendered(key, delivery, now_ms=now_ms))


def retry_record(settings: Settings, delivery: Delivery, *, delay_s: int, now_ms: int) -> AddressedRecord:
    """Return the record that schedules a delivery in the retry topic of a delay."""
    record = rendered(delivery["task_id"].encode(), delivery, now_ms=now_ms)
    return AddressedRecord(
        settings.topic(topics.retry(delay_s)), retry_partition(settings, delivery["task_id"]), record
    )


def retry_partition(settings: Settings, task_id: str) -> int:
    """Return the partition of the retry topics for the deliveries of a task."""
    return stable_hash(task_id) % topics.retry_partitions(settings.kafka.partitions)


def rendered(key: bytes, delivery: Delivery, *, now_ms: int) -> Record:
    """Return a delivery encoded as a record."""
    described = headers(
        kind=f"delivery.{delivery['state']}",
        ce_id=f"{delivery['id']}/{delivery['made']}",
        at_ms=now_ms,
        level=delivery["level"],
        owner=delivery["owner"],
        attempt=delivery["made"],
        traceparent=(delivery["traceparent"] or "").encode(),
    )
    return Record(key, DELIVERY.encode(delivery), described, now_ms)
