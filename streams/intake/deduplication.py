"""Deduplication by Idempotency-Key: of several tasks with the same tenant, queue and key only the first is run. Pure.

The key determines the partition, so one scheduler processes all duplicates in order. It stores a reservation under the
id `IDEM-…`, which names the original task; each duplicate gets a state record that points to the original, and neither
work nor result. All these records have the state `expired`: they are only retained until their window ends.

The time of the duplicate's own record decides, so a record that is read again after a crash gets the same result.
"""

from __future__ import annotations

from hashlib import sha256

from core.errors import IdempotencyConflict
from schemas import idempotency
from schemas.records import Status, Task
from streams.state_machine.rows import request_digest

PREFIX = idempotency.PREFIX
CONFLICT = IdempotencyConflict.code
DUPLICATE_WINDOW_MS = 600_000
"""Retention of a duplicate's state record: the ingress reads it at once, a client may get it by its id later."""
MARGIN_MS = 3_600_000
"""Retention of a reservation after its window, for duplicates that are read again after a crash."""


def idempotency_row_key(task: Task) -> str | None:
    """Return the id of the reservation of a task; None for a task without a key."""
    key = task["idempotency_key"]
    return None if key is None else idempotency.key_id(task["queue"], task["owner"], key)


def digest(task: Task) -> str:
    """Return the digest that must be equal for duplicates: of the endpoint and the body."""
    content = request_digest(task) or sha256(b"").hexdigest()
    return sha256(f"{task['endpoint']}\n{content}".encode()).hexdigest()


def is_reserved(reservation: Status | None, task_id: str, *, created_ms: int, now_ms: int) -> bool:
    """Return whether the key was reserved by another task when this task was written."""
    if reservation is None or reservation["duplicate_of"] == task_id:
        return False
    return min(created_ms, now_ms) < reservation["deadline_ms"]


def reservation_row(original: Status, *, name: str, content: str, now_ms: int, window_ms: int) -> Status:
    """Return the reservation of a key by its first task."""
    ends_ms = now_ms + window_ms
    return {
        **original,
        "state": "expired",
        "id": name,
        "duplicate_of": original["id"],
        "digest": content,
        "model": None,
        "callback_url": None,
        "trace_id": None,
        "deadline_ms": ends_ms,
        "expires_ms": ends_ms + MARGIN_MS,
    }


def duplicate_row(row: Status, reservation: Status, *, content: str, now_ms: int) -> Status:
    """Return the state record of a duplicate: it points to the original, or fails with a conflict if they differ."""
    same = content == reservation["digest"]
    message = f"this Idempotency-Key was used for {reservation['duplicate_of']} with another endpoint or body"
    return {
        **row,
        "state": "expired",
        "duplicate_of": reservation["duplicate_of"],
        "digest": content,
        "finished_ms": now_ms,
        "expires_ms": now_ms + DUPLICATE_WINDOW_MS,
        "status_code": None if same else 422,
        "error_code": None if same else CONFLICT,
        "error_message": None if same else message,
    }
