"""Builders of records for the tests: everything has a default, a test names what it is about."""

from __future__ import annotations

import itertools
from typing import Any

from schemas.events import event
from schemas.ids import TaskId
from schemas.partitioning import queue_number
from schemas.records import NO_ORIGIN, Event, Outcome, Queue, Task

_serial = itertools.count()


def task_id(*, partition: int = 0, level: int = 0, mode: str = "C") -> str:
    """Return a fresh task id."""
    return str(TaskId(7, level, mode, 1_795_000_000, partition, next(_serial) % 1_000_000))


def task(**changes: Any) -> Task:
    """Build a task."""
    base: Task = {
        "queue": "chat",
        "level": 0,
        "endpoint": "/v1/chat/completions",
        "data": b'{"model":"m","messages":[]}',
        "id": None,
        "mode": "callback",
        "data_ref": None,
        "model": "m",
        "owner": "key-1",
        "callback_url": None,
        "trace_id": None,
        "idempotency_key": None,
        "created_ms": 1_000,
        "timeout_ms": 0,
        "start_timeout_ms": 0,
        "run_timeout_ms": 0,
        "retention_ms": 0,
        "content_type": "application/json",
        "user": None,
        "callback_events": [],
        **NO_ORIGIN,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def queue(name: str = "chat", **changes: Any) -> Queue:
    """Build the record of a queue that its first task registered."""
    base: Queue = {
        "name": name,
        "number": queue_number(name),
        "endpoint": None,
        "owner": None,
        "created_ms": 0,
        "width": 0,
        "work_partitions": 4,
        "served_by": "dispatcher",
        "explicit": False,
        "paused": False,
        "concurrency": None,
        "retention_ms": None,
        "max_waiting": None,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def outcome(**changes: Any) -> Outcome:
    """Build the outcome of a call that went well."""
    base: Outcome = {
        "status_code": 200,
        "body": b'{"ok":true}',
        "body_ref": None,
        "content_type": "application/json",
        "error_code": None,
        "error_message": None,
        "retriable": False,
        "retry_after_ms": None,
        "upstream": "http://up/v1",
        "chunks": 0,
        "first_token_ms": None,
        "usage": None,
        "started_ms": 2_000,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def failure(**changes: Any) -> Outcome:
    """Build the outcome of a call that may be tried again."""
    return outcome(**{"status_code": 503, "error_code": "upstream_error", "retriable": True, **changes})


def finished(task_id_: str, *, attempt: int = 1, worker: str = "w1", result: Outcome | None = None) -> Event:
    """Build a finished event."""
    return event("finished", at_ms=3_000, task_id=task_id_, attempt=attempt, worker=worker, outcome=result or outcome())


def claimed(task_id_: str, *, attempt: int = 1, worker: str = "w1", streamed: bool = False) -> Event:
    """Build a claimed event."""
    return event("claimed", at_ms=2_500, task_id=task_id_, attempt=attempt, worker=worker, streamed=streamed)
