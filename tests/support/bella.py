"""What the wire tests of the Bella dialect share."""

from __future__ import annotations

import re
from typing import Any

import httpx

from schemas.records import NO_ORIGIN, Chunk, Status, Task
from tests.support.memory_ingress import Memory
from tests.support.results import result_of

PUT = "/v1/queue/put"
BODY = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": {"model": "m", "messages": []}}
ID = re.compile(r"TASK-\d+-[01]-[BSC]-\d{12}-000\d-007\d{3}")
Double = tuple[Memory, httpx.AsyncClient]


def envelope(response: httpx.Response) -> dict[str, Any]:
    """Check the error envelope of an answer and return it without its time."""
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert isinstance(body.pop("timestamp"), int)
    assert body["code"] == response.status_code
    return body


def answer(**changes: Any) -> Any:
    """Answer every task with one result."""
    return lambda task: [result_of(task["id"], **changes)]


def shutting_down(memory: Memory) -> Any:
    """Begin the shutdown of the ingress when a task comes, and give no answer."""

    def answer_nothing(_: Task) -> list[Any]:
        memory.ingress.waiters.shut_down()
        return []

    return answer_nothing


def chunk(task: Task, seq: int, *frames: bytes, **changes: Any) -> Chunk:
    """Build a chunk."""
    base: Chunk = {
        "id": task["id"] or "",
        "attempt": 1,
        "worker": "w1",
        "seq": seq,
        "frames": list(frames),
        "events": [],
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def row_of(task: Task, offset: int, **changes: Any) -> Status:
    """Build the row of a task."""
    base: Status = {
        "state": "queued",
        "id": task["id"] or "",
        "queue": task["queue"],
        "level": 0,
        "endpoint": task["endpoint"],
        "mode": task["mode"],
        "owner": task["owner"],
        "model": task["model"],
        "callback_url": task["callback_url"],
        "trace_id": task["trace_id"],
        "idempotency_key": None,
        "duplicate_of": None,
        "attempt": 1,
        "lost_workers": 0,
        "worker": None,
        "created_ms": task["created_ms"],
        "started_ms": None,
        "finished_ms": None,
        "not_before_ms": None,
        "deadline_ms": task["created_ms"] + task["timeout_ms"],
        "expires_ms": None,
        "source_offset": offset,
        "result_offset": None,
        "status_code": None,
        "error_code": None,
        "error_message": None,
        "streamed": False,
        "digest": None,
        "start_deadline_ms": None,
        "run_timeout_ms": 0,
        "retention_ms": 0,
        "content_type": "application/json",
        "user": None,
        "callback_events": [],
        "progress": 0,
        "lease_until_ms": None,
        "lease_retries": None,
        "updated_ms": 0,
        **NO_ORIGIN,
        "request_digest": None,
        "traceparent": None,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]
