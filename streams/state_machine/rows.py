"""Initial and final state records of tasks, and the limits that the state machine applies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from core.settings.models import ModelSettings, Settings
from schemas.records import NO_ORIGIN, Event, Result, Status, Task

DEFAULT_TIMEOUT_MS = {"blocking": 300_000, "streaming": 300_000, "callback": 86_400_000, "batch": 14 * 86_400_000}
NO_OFFSET = -1
StateKey = tuple[int, str]
"""Partition, and id of a task or batch."""
EARLY_CANCEL_MS = 3_600_000
"""Retention of a cancellation whose task was not read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRules:
    """Limits of the state machine, times in ms, and the price table."""

    max_attempts: int = 5
    max_lost_workers: int = 3
    retry_base_ms: int = 1_000
    retry_max_ms: int = 60_000
    start_timeout_ms: int = 0
    run_timeout_ms: int = 0
    retention_ms: int = 86_400_000
    idempotency_ms: int = 86_400_000
    prices: Mapping[str, ModelSettings] = field(default_factory=dict)


def rules_of(settings: Settings) -> TaskRules:
    """Return the limits of the settings."""
    streams = settings.streams
    return TaskRules(
        max_attempts=streams.max_attempts,
        max_lost_workers=streams.max_lost_workers,
        retry_base_ms=int(streams.retry_base_s * 1000),
        retry_max_ms=int(streams.retry_max_s * 1000),
        start_timeout_ms=streams.start_timeout_s * 1000,
        run_timeout_ms=streams.run_timeout_s * 1000,
        retention_ms=streams.result_retention_s * 1000,
        idempotency_ms=streams.idempotency_window_s * 1000,
        prices=settings.models,
    )


def new_status(task: Task, *, task_id: str, offset: int, created_ms: int, rules: TaskRules) -> Status:
    """Return the initial state record of a task."""
    timeout_ms = task["timeout_ms"] or DEFAULT_TIMEOUT_MS[task["mode"]]
    start_ms = task["start_timeout_ms"] or rules.start_timeout_ms
    return {
        "state": "queued",
        "id": task_id,
        "queue": task["queue"],
        "level": task["level"],
        "endpoint": task["endpoint"],
        "mode": task["mode"],
        "owner": task["owner"],
        "model": task["model"],
        "callback_url": task["callback_url"],
        "trace_id": task["trace_id"],
        "idempotency_key": task["idempotency_key"],
        "duplicate_of": None,
        "attempt": 1,
        "lost_workers": 0,
        "worker": None,
        "streamed": False,
        "created_ms": created_ms,
        "started_ms": None,
        "finished_ms": None,
        "not_before_ms": None,
        "deadline_ms": created_ms + timeout_ms,
        "expires_ms": None,
        "source_offset": offset,
        "result_offset": None,
        "status_code": None,
        "error_code": None,
        "error_message": None,
        "digest": None,
        "start_deadline_ms": created_ms + start_ms if start_ms else None,
        "run_timeout_ms": task["run_timeout_ms"] or rules.run_timeout_ms,
        "retention_ms": task["retention_ms"] or rules.retention_ms,
        "content_type": task["content_type"],
        "user": task["user"],
        "callback_events": task["callback_events"],
        "progress": 0,
        "lease_until_ms": None,
        "lease_retries": None,
        "updated_ms": created_ms,
        "batch_id": task["batch_id"],
        "batch_line": task["batch_line"],
        "custom_id": task["custom_id"],
        "replay_of": task["replay_of"],
        "reply_topic": task["reply_topic"],
        "request_digest": request_digest(task),
        "traceparent": None,
    }


def finished_status(row: Status, result: Result, *, offset: int) -> Status:
    """Return the state record of a task of which only the result is left after a crash."""
    completed = result["state"] == "completed"
    return {
        **row,
        "state": result["state"],
        "attempt": result["attempt"],
        "lost_workers": result["lost_workers"],
        "worker": result["worker"],
        "progress": 100 if completed else row["progress"],
        "started_ms": result["started_ms"],
        "finished_ms": result["finished_ms"],
        "expires_ms": result["finished_ms"] + row["retention_ms"],
        "result_offset": offset,
        "status_code": result["status_code"],
        "error_code": result["error_code"],
        "error_message": result["error_message"],
    }


def request_digest(task: Task) -> str | None:
    """Return the SHA-256 of a request body, inline or in the object store; None for a request without one."""
    if task["data_ref"] is not None:
        return task["data_ref"]["sha256"]
    data = task["data"]
    return None if data is None else sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def next_deadline_ms(row: Status) -> int:
    """Return the deadline of an active task; its start deadline applies until a worker starts it."""
    if row["started_ms"] is None and row["start_deadline_ms"] is not None:
        return min(row["start_deadline_ms"], row["deadline_ms"])
    return row["deadline_ms"]


def is_early_cancel(row: Status) -> bool:
    """Return whether a state record only stores a cancellation that was read before its task."""
    return row["source_offset"] == NO_OFFSET


def early_cancel_status(event: Event, *, now_ms: int) -> Status:
    """Return the record that stores a cancellation whose task was not read yet: the two are in different topics."""
    placeholder: Task = {
        "queue": "",
        "level": 0,
        "endpoint": "",
        "data": None,
        "id": event["id"],
        "mode": "callback",
        "data_ref": None,
        "model": None,
        "owner": event["owner"],
        "callback_url": None,
        "trace_id": None,
        "idempotency_key": None,
        "created_ms": now_ms,
        "timeout_ms": EARLY_CANCEL_MS,
        "start_timeout_ms": 0,
        "run_timeout_ms": 0,
        "retention_ms": 0,
        "content_type": "application/json",
        "user": None,
        "callback_events": [],
        **NO_ORIGIN,
    }
    row = new_status(placeholder, task_id=event["id"], offset=NO_OFFSET, created_ms=now_ms, rules=TaskRules())
    return {
        **row,
        "state": "expired",
        "expires_ms": now_ms + EARLY_CANCEL_MS,
        "error_code": "cancelled",
        "error_message": event["reason"] or "cancelled on request",
    }
