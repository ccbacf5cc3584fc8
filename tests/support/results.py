"""Results as a scheduler writes them."""

from __future__ import annotations

from typing import Any

from schemas.records import NO_ORIGIN, Result


def result_of(task_id: str, **changes: Any) -> Result:
    """Build the result of a task that went well."""
    base: Result = {
        "id": task_id,
        "state": "completed",
        "queue": "chat",
        "level": 0,
        "endpoint": "/v1/chat/completions",
        "mode": "blocking",
        "owner": "key-1",
        "model": "m",
        "callback_url": None,
        "trace_id": None,
        "attempt": 1,
        "worker": "w1",
        "upstream": "http://up/v1",
        "status_code": 200,
        "body": b'{"ok":true}',
        "body_ref": None,
        "content_type": "application/json",
        "error_code": None,
        "error_message": None,
        "usage": None,
        "chunks": 0,
        "created_ms": 1_000,
        "started_ms": 2_000,
        "finished_ms": 3_000,
        "callback_events": [],
        **NO_ORIGIN,
        "request_digest": None,
        "lost_workers": 0,
        "first_token_ms": None,
        "cost": None,
        "currency": None,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]
