"""Deliveries as records: how they begin, what an attempt makes of them, and where each record goes. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from core.kafka.deadletters import dead_letter
from core.kafka.lookup import Found
from core.kafka.producer import Record
from core.settings import Settings
from dispatcher.events import Address, Addressed
from dispatcher.webhooks.ladder import rung
from dispatcher.webhooks.post import Answer
from schemas import ids, topics
from schemas.codec import DELIVERY
from schemas.headers import headers
from schemas.records import Delivery, DeliveryState, Result, Status, Try
from schemas.slices import stable_hash

KEPT_TRIES = 20
DISABLED_PARTITION = 0
NOWHERE = -1


class Attempted(NamedTuple):
    """One attempt with its times."""

    answer: Answer
    at_ms: int
    latency_ms: int


def wanted(event: str, events: list[str]) -> bool:
    """Tell whether a task's callback is told of an event; without a choice of the outcome alone."""
    return event in events if events else event in ("completed", "failed", "cancelled")


def of_result(result: Result, offset: int, *, now_ms: int) -> Delivery:
    """Begin the delivery of an outcome."""
    event = result["state"]
    return _begun(result["id"], event, f"{result['id']}-{event}", result, offset=offset, payload=None, now_ms=now_ms)


def of_row(row: Status, event: str, name: str, payload: bytes, *, now_ms: int) -> Delivery:
    """Begin the delivery of news; `name` tells news of one kind apart."""
    return _begun(row["id"], event, f"{row['id']}-{name}", row, offset=None, payload=payload, now_ms=now_ms)


def again(delivery: Delivery, *, now_ms: int) -> Delivery:
    """Begin a round that somebody asked for."""
    return {**delivery, "state": "pending", "step": 0, "created_ms": now_ms, "due_ms": now_ms, "manual": True}


def after(delivery: Delivery, tried: Attempted, *, state: DeliveryState, due_ms: int | None) -> Delivery:
    """Note an attempt and what follows."""
    answer = tried.answer
    note: Try = {
        "at_ms": tried.at_ms,
        "status_code": answer.status,
        "latency_ms": tried.latency_ms,
        "reason": answer.reason,
    }
    return {
        **delivery,
        "state": state,
        "attempts": [*delivery["attempts"], note][-KEPT_TRIES:],
        "made": delivery["made"] + 1,
        "step": delivery["step"] + 1,
        "due_ms": due_ms,
    }


def row_key(task_id: str, event: str) -> bytes:
    """Return the key of a delivery's row."""
    return f"{task_id}/{event}".encode()


def url_key(owner: str | None, url: str) -> bytes:
    """Return the key under which a tenant's URL is disabled."""
    return f"{owner or ''}/{sha256(url.encode()).hexdigest()}".encode()


def row(settings: Settings, delivery: Delivery, *, now_ms: int) -> Addressed:
    """Address what everybody can see of a delivery."""
    key = row_key(delivery["task_id"], delivery["event"])
    address = Address(settings.topic(topics.DELIVERIES), ids.parse(delivery["task_id"]).partition)
    return Addressed(address, _record(key, delivery, now_ms=now_ms))


def waiting(settings: Settings, delivery: Delivery, *, now_ms: int) -> Addressed:
    """Address a delivery that waits to the retry topic that its time fits."""
    topic = topics.retry(rung((delivery["due_ms"] or now_ms) - now_ms))
    partition = retry_partition(settings, delivery["task_id"])
    record = _record(delivery["task_id"].encode(), delivery, now_ms=now_ms)
    return Addressed(Address(settings.topic(topic), partition), record)


def letter(settings: Settings, delivery: Delivery, *, reason: str, now_ms: int) -> Addressed:
    """Address the dead letter of a delivery that was given up: as the record that would begin a new round."""
    record = _record(delivery["task_id"].encode(), again(delivery, now_ms=now_ms), now_ms=now_ms)
    topic, partition = settings.topic(topics.retry(0)), retry_partition(settings, delivery["task_id"])
    found = Found(topic, partition, NOWHERE, now_ms, record.key, record.value, record.headers)
    name, target, buried = dead_letter(
        settings, found, reason=f"callback given up: {reason}", field="callback_url", attempt=delivery["made"]
    )
    return Addressed(Address(name, target), buried)


def disabled(settings: Settings, delivery: Delivery, *, until_ms: int, now_ms: int) -> Addressed:
    """Address the mark that a URL has answered 410."""
    mark: Delivery = {**delivery, "state": "disabled", "due_ms": until_ms, "payload": None}
    key = url_key(delivery["owner"], delivery["url"])
    address = Address(settings.topic(topics.DISABLED), DISABLED_PARTITION)
    return Addressed(address, _record(key, mark, now_ms=now_ms))


def enabled(settings: Settings, delivery: Delivery) -> Addressed:
    """Address the end of that mark."""
    address = Address(settings.topic(topics.DISABLED), DISABLED_PARTITION)
    return Addressed(address, Record(url_key(delivery["owner"], delivery["url"]), None))


def retry_partition(settings: Settings, task_id: str) -> int:
    """Return the partition of the retry topics that a task's deliveries wait in."""
    return stable_hash(task_id) % min(settings.kafka.partitions, topics.RETRY_PARTITIONS)


def _begun(
    task_id: str, event: str, delivery_id: str, told: Result | Status, *, offset: int | None, payload: bytes | None,
    now_ms: int,
) -> Delivery:  # fmt: skip
    return {
        "id": delivery_id,
        "task_id": task_id,
        "event": event,
        "state": "pending",
        "url": told["callback_url"] or "",
        "owner": told["owner"],
        "level": told["level"],
        "result_offset": offset,
        "payload": payload,
        "attempts": [],
        "made": 0,
        "step": 0,
        "created_ms": now_ms,
        "due_ms": now_ms,
        "manual": False,
    }


def _record(key: bytes, delivery: Delivery, *, now_ms: int) -> Record:
    described = headers(
        kind=f"delivery.{delivery['state']}",
        ce_id=f"{delivery['id']}/{delivery['made']}",
        at_ms=now_ms,
        level=delivery["level"],
        owner=delivery["owner"],
        attempt=delivery["made"],
    )
    return Record(key, DELIVERY.encode(delivery), described, now_ms)
