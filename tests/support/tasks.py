"""What the wire tests of async tasks share."""

from __future__ import annotations

from typing import Any

import httpx

from core.kafka.producer import Record
from schemas import ids, topics
from schemas.codec import RESULT, TASK
from schemas.records import Task
from tests.support.bella import BODY, PUT, Double, row_of
from tests.support.results import result_of

CREATED_MS = 1_769_860_800_250
CREATED = "2026-01-31T12:00:00Z"


async def put_one(ingress: Double, **members: Any) -> Task:
    """Put a task that nobody has folded yet."""
    memory, client = ingress
    await client.post(PUT, json=BODY | members)
    return TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")


async def with_row(ingress: Double, **row: Any) -> Task:
    """Put a task and give it a row; its times are fixed."""
    task = await put_one(ingress, trace_id="t-1")
    key = (task["id"] or "").encode()
    ingress[0].rows[key] = row_of(task, 0, **{"created_ms": CREATED_MS, "deadline_ms": CREATED_MS + 60_000, **row})
    return task


async def ended(ingress: Double, *, row: dict[str, Any] | None = None, **changes: Any) -> Task:
    """Put a task that has an outcome."""
    task = await with_row(ingress)
    result = result_of(task["id"] or "", mode="callback", **changes)
    memory, key = ingress[0], (task["id"] or "").encode()
    tp = memory.topic_partition(topics.results(0), ids.parse(result["id"]).partition)
    memory.log[tp].append(Record(key, RESULT.encode(result)))
    names = ("state", "status_code", "error_code", "error_message")
    said: dict[str, Any] = {name: result[name] for name in names}  # type: ignore[literal-required]
    times = {"started_ms": CREATED_MS + 1, "finished_ms": CREATED_MS + 2_000, "expires_ms": CREATED_MS + 9_000}
    memory.rows[key] = {**memory.rows[key], "result_offset": 0, **times, **said, **(row or {})}  # type: ignore[typeddict-item]
    return task


async def shown(ingress: Double, task: Task, **headers: str) -> httpx.Response:
    """Look at a task, and check what every answer has."""
    response = await ingress[1].get(f"/v1/tasks/{ids.parse(task['id'] or '').task()}", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["x-task-id"] == task["id"]
    assert response.headers["cache-control"] == "no-store"
    return response


def polls_of(ingress: Double) -> Any:
    """Return the held looks."""
    [shut_down] = [
        tell for tell in ingress[0].ingress.waiters._shutdown_listeners if type(tell.__self__).__name__ == "LongPolls"
    ]
    return shut_down.__self__


def common(task: Task) -> dict[str, Any]:
    """Return what is the same in every state."""
    known = ids.parse(task["id"] or "")
    return {
        "id": known.task(),
        "object": "task",
        "model_code": "m",
        "request_id": known.task().replace("task_", "req_"),
        "queue": "chat",
        "level": 0,
        "endpoint": "/v1/chat/completions",
        "trace_id": "t-1",
        "created_at": CREATED,
    }
