"""What a reader may learn about one task, put together from its row, its task record and its result record."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.common import Usage
from schemas.records import Mode, State, Status, Task


@dataclass(slots=True, kw_only=True)
class TaskSnapshot:
    """One task in its present state; data, body and content_type are set after their records were read."""

    id: str
    state: State
    queue: str
    level: int
    endpoint: str
    mode: Mode
    owner: str | None
    callback_url: str | None
    trace_id: str | None
    created_ms: int
    deadline_ms: int
    updated_ms: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    status_code: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    model: str | None = None
    user: str | None = None
    progress: int = 0
    expires_ms: int | None = None
    usage: Usage | None = None
    request_type: str = "application/json"
    """Media type of data."""
    data: bytes | str | None = None
    body: bytes | None = None
    content_type: str = "application/json"


def from_status(row: Status) -> TaskSnapshot:
    """Build the snapshot of a status row."""
    return TaskSnapshot(
        id=row["id"],
        state=row["state"],
        queue=row["queue"],
        level=row["level"],
        endpoint=row["endpoint"],
        mode=row["mode"],
        owner=row["owner"],
        callback_url=row["callback_url"],
        trace_id=row["trace_id"],
        created_ms=row["created_ms"],
        deadline_ms=row["deadline_ms"],
        updated_ms=row["updated_ms"],
        started_ms=row["started_ms"],
        finished_ms=row["finished_ms"],
        status_code=row["status_code"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        model=row["model"],
        user=row["user"],
        progress=row["progress"],
        expires_ms=row["expires_ms"],
        request_type=row["content_type"],
    )


def from_task(task: Task, task_id: str) -> TaskSnapshot:
    """Build the snapshot of a task record that no scheduler has processed yet: it is queued."""
    return TaskSnapshot(
        id=task_id,
        state="queued",
        queue=task["queue"],
        level=task["level"],
        endpoint=task["endpoint"],
        mode=task["mode"],
        owner=task["owner"],
        callback_url=task["callback_url"],
        trace_id=task["trace_id"],
        created_ms=task["created_ms"],
        deadline_ms=task["created_ms"] + task["timeout_ms"],
        updated_ms=task["created_ms"],
        model=task["model"],
        user=task["user"],
        request_type=task["content_type"],
    )
