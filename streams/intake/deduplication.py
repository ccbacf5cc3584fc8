"""Twins: tasks of one owner, queue and Idempotency-Key, of which only the first is run. Pure.

The key decides the home partition, so one scheduler sees all twins in one order. It keeps a row under `IDEM-…` that
names the first of them; every further one gets a row of its own that points there, and nothing else: no work, no
result. All these rows have the state `expired`, for they are only kept until their time is over.

What counts is the time of the twin's own record: one that is read again after a crash is judged as it was before.
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
"""How long a twin's own row is kept: its ingress reads it at once, a look-up by its id may come a little later."""
MARGIN_MS = 3_600_000
"""A key's row outlives its validity by this, for a twin that is read again after a crash must still find it."""


def key_id(task: Task) -> str | None:
    """Return the id of the row that remembers a task's key; None when it has none."""
    key = task["idempotency_key"]
    return None if key is None else idempotency.key_id(task["queue"], task["owner"], key)


def digest(task: Task) -> str:
    """Return what twins must have in common: endpoint and body, however it is kept."""
    content = request_digest(task) or sha256(b"").hexdigest()
    return sha256(f"{task['endpoint']}\n{content}".encode()).hexdigest()


def is_reserved(key: Status | None, task_id: str, *, created_ms: int, now_ms: int) -> bool:
    """Tell whether a key's row speaks of another task and was valid when this one was written."""
    return key is not None and key["duplicate_of"] != task_id and min(created_ms, now_ms) < key["deadline_ms"]


def reservation_row(first: Status, *, name: str, content: str, now_ms: int, window_ms: int) -> Status:
    """Remember the first task of a key."""
    ends_ms = now_ms + window_ms
    return {
        **first,
        "state": "expired",
        "id": name,
        "duplicate_of": first["id"],
        "digest": content,
        "model": None,
        "callback_url": None,
        "trace_id": None,
        "deadline_ms": ends_ms,
        "expires_ms": ends_ms + MARGIN_MS,
    }


def duplicate_row(fresh: Status, key: Status, *, content: str, now_ms: int) -> Status:
    """Point a twin to the first task, or refuse it because it asks for something else."""
    same = content == key["digest"]
    message = f"this Idempotency-Key was used for {key['duplicate_of']} with another endpoint or body"
    return {
        **fresh,
        "state": "expired",
        "duplicate_of": key["duplicate_of"],
        "digest": content,
        "finished_ms": now_ms,
        "expires_ms": now_ms + DUPLICATE_WINDOW_MS,
        "status_code": None if same else 422,
        "error_code": None if same else CONFLICT,
        "error_message": None if same else message,
    }
