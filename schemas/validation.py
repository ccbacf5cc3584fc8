"""Rules for new tasks, common to all APIs and direct records."""

from __future__ import annotations

import re
from collections.abc import Sequence

from schemas.callback_url import OPEN, CallbackPolicy, problem
from schemas.records import Task

QUEUE_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ENDPOINT = re.compile(r"/[A-Za-z0-9._~/-]{1,200}")
KEY = re.compile(r"[\x20-\x7e]{1,256}")
MAX_TEXT = 256
CALLBACK_EVENTS = ("start", "progress", "completed", "failed", "cancelled", "expired")
MAX_TIMEOUT_MS = (86_400_000, 14 * 86_400_000)
"""Maximum time limit per level: a task record must outlive its task, because retries read it."""

MAX_RETENTION_MS = 7 * 86_400_000
"""Retention of result records."""
MAX_CREATED_MS = 4_102_444_800_000
"""The year 2100: a later time is a wrong unit, and sums with it would not fit a record."""


class Invalid(ValueError):
    """A task is invalid; `field` names the invalid member."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def check_queue(name: str) -> None:
    """Raise Invalid for a queue name that cannot be part of a topic name."""
    if not QUEUE_NAME.fullmatch(name):
        raise Invalid("queue", "queue must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -")


def check_endpoint(path: str) -> None:
    """Raise Invalid unless the endpoint is a plain absolute path."""
    if not ENDPOINT.fullmatch(path) or "//" in path or ".." in path.split("/"):
        raise Invalid("endpoint", "endpoint must be a path such as /v1/chat/completions")


def check_callback(url: str, allowed: CallbackPolicy = OPEN) -> None:
    """Raise Invalid for a webhook URL that is invalid or that the operator does not allow."""
    if (why := problem(url, allowed)) is not None:
        raise Invalid("callback_url", f"callback_url {why}")


def check_events(events: Sequence[str]) -> None:
    """Raise Invalid for unknown webhook events."""
    if len(events) > len(CALLBACK_EVENTS) or not set(events) <= set(CALLBACK_EVENTS):
        raise Invalid("callback_events", f"callback_events must be a list of {', '.join(CALLBACK_EVENTS)}")


def check_key(key: str, *, field: str = "idempotency_key") -> None:
    """Raise Invalid for an idempotency key that is empty, too long or not printable ASCII."""
    if not KEY.fullmatch(key):
        raise Invalid(field, f"{field} must be 1 to {MAX_TEXT} printable ASCII characters")


def check_clocks(task: Task) -> None:
    """Raise Invalid for time limits out of range; 0 means the default."""
    longest_ms = MAX_TIMEOUT_MS[task["level"]]
    clocks = (
        ("start_timeout", task["start_timeout_ms"], longest_ms),
        ("run_timeout", task["run_timeout_ms"], longest_ms),
        ("result_retention", task["retention_ms"], MAX_RETENTION_MS),
    )
    for name, value, most_ms in clocks:
        if not 0 <= value <= most_ms:
            raise Invalid(name, f"{name} must be between 1 and {most_ms // 1000} seconds")


def check_task(task: Task) -> None:
    """Raise Invalid for the first rule that a task violates."""
    check_queue(task["queue"])
    if task["level"] not in (0, 1):
        raise Invalid("level", "level must be 0 (online) or 1 (offline)")
    check_endpoint(task["endpoint"])
    if task["level"] == 1 and task["mode"] in ("blocking", "streaming"):
        raise Invalid("level", f"level 1 cannot be used with response_mode {task['mode']}; use level 0 or callback")
    if not task["data"] and task["data_ref"] is None:
        raise Invalid("data", "data is required")
    if not 0 <= task["timeout_ms"] <= MAX_TIMEOUT_MS[task["level"]]:
        raise Invalid("timeout", f"timeout must be between 1 and {MAX_TIMEOUT_MS[task['level']] // 1000} seconds")
    check_clocks(task)
    if not 0 <= task["created_ms"] <= MAX_CREATED_MS:
        raise Invalid("created_ms", "created_ms must be epoch milliseconds before the year 2100, or 0")
    if task["callback_url"] is not None:
        check_callback(task["callback_url"])
    check_events(task["callback_events"])
    for name in ("trace_id", "model", "owner"):
        text = task[name]
        if text is not None and len(text) > MAX_TEXT:
            raise Invalid(name, f"{name} must be at most {MAX_TEXT} characters")
    if task["idempotency_key"] is not None:
        check_key(task["idempotency_key"])
