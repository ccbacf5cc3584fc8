"""The task object of the async API, as GET /v1/tasks/{id} and every accepted call show it. Pure: no clock, no HTTP."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from schemas.ids import TaskId

PATH = "/v1/tasks/"
RETRY_AFTER_S = 3
"""What a client that polls is asked to wait."""


def location(task_id: TaskId) -> str:
    """Return the path where a task is shown."""
    return PATH + task_id.task()


def moment(ms: int) -> str:
    """Render epoch milliseconds as ISO-8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def accepted_object(
    task_id: TaskId, *, created_ms: int, request_id: str, status: str = "queued", progress: int = 0
) -> bytes:
    """Render the answer to an async call.

    Args:
        request_id: names this request; a twin of an earlier one gets the id of the first and a request_id of its own.
        status: queued, unless the call is the twin of a task that stands elsewhere.
    """
    return orjson.dumps(
        {
            "id": task_id.task(),
            "status": status,
            "progress": progress,
            "created_at": moment(created_ms),
            "request_id": request_id,
        }
    )


def request_id(task_id: TaskId) -> str:
    """Return the req_ form of the id that a request was given, whichever task answers it."""
    return f"req_{task_id.packed():032x}"
