"""The task object of the async API, as GET /v1/tasks/{id} and every accepted call show it. Pure: no clock, no HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from core.embedding import described, json_of
from core.upstream_errors import reason_in
from ingress.http.sse import MEDIA_TYPE
from ingress.read_model.task_snapshot import TaskSnapshot
from schemas import ids
from schemas.ids import TaskId
from schemas.records import TERMINAL

PATH = "/v1/tasks/"
RETRY_AFTER_S = 3
"""What a client that polls is asked to wait."""
MAX_WAIT_S = 60
"""The longest wait of one request; proxies close a connection that is silent for longer."""
_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


def location(task_id: TaskId) -> str:
    """Return the path where a task is shown."""
    return PATH + task_id.task()


def moment(ms: int) -> str:
    """Render epoch milliseconds as ISO-8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def accepted_object(task_id: TaskId, *, created_ms: int, status: str = "queued", progress: int = 0) -> bytes:
    """Render the answer to an async call; for a duplicate it shows the original in its present state."""
    return orjson.dumps(
        {
            "id": task_id.task(),
            "status": status,
            "progress": progress,
            "created_at": moment(created_ms),
            "request_id": task_id.request(),
        }
    )


def wait_s(preferences: Sequence[str]) -> int:
    """Read the seconds of `Prefer: wait=N`, at most MAX_WAIT_S; 0 when there is none, or it is none."""
    for header in preferences:
        for preference in header.split(","):
            if match := _WAIT.fullmatch(preference.strip()):
                return min(int(match[1]), MAX_WAIT_S)
    return 0


def task_object(reading: TaskSnapshot) -> dict[str, Any]:
    """Build the task object; members without a value are left out. The result is there when it has been fetched."""
    task_id = ids.parse(reading.id)
    members: dict[str, Any] = {
        "id": task_id.task(),
        "object": "task",
        "status": reading.state,
        "progress": _progress(reading),
        "model_code": reading.model,
        "request_id": task_id.request(),
        "queue": reading.queue,
        "level": reading.level,
        "endpoint": reading.endpoint,
        "trace_id": reading.trace_id,
        "created_at": moment(reading.created_ms),
        "updated_at": moment(_updated_ms(reading)),
        "started_at": _moment(reading.started_ms),
        "deadline_at": None if reading.state in TERMINAL else moment(reading.deadline_ms),
        **_ended(reading),
    }
    return {name: value for name, value in members.items() if value is not None}


def _ended(reading: TaskSnapshot) -> dict[str, Any]:
    """Build what a task has once it has ended."""
    if reading.state not in TERMINAL:
        return {}
    word = ended_as(reading)
    usage = reading.usage
    gone = reading.state == "expired"
    return {
        f"{word}_at": _moment(reading.finished_ms),
        "expires_at": None if gone else _moment(reading.expires_ms),
        "expired_at": _moment(reading.updated_ms or None) if gone else None,
        "status_code": reading.status_code,
        "usage": usage and {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
        "error_code": reading.error_code,
        "error_message": None if word == "completed" else _reason(reading) or reading.error_message,
        **(_result(reading) if word == "completed" else {}),
    }


def ended_as(reading: TaskSnapshot) -> str:
    """Return completed, failed or cancelled: how a task ended, also when its result has expired since."""
    if reading.state != "expired":
        return reading.state
    return {None: "completed", "cancelled": "cancelled"}.get(reading.error_code, "failed")


def _result(reading: TaskSnapshot) -> dict[str, Any]:
    """Build the result: JSON as it came, text as a string, anything else in base64."""
    if reading.body is None:
        return {}
    members = described(reading.body, reading.content_type, name="result")
    if json_of(reading.body, reading.content_type) is None:
        members["result_content_type"] = reading.content_type
    return members


def _reason(reading: TaskSnapshot) -> str | None:
    """Return the upstream's own message, unless the body is a part of a stream."""
    if reading.content_type.startswith(MEDIA_TYPE):
        return None
    return reason_in(reading.body, reading.content_type)


def _progress(reading: TaskSnapshot) -> int:
    if reading.state in TERMINAL and ended_as(reading) == "completed":
        return 100
    return reading.progress


def _updated_ms(reading: TaskSnapshot) -> int:
    return max(reading.updated_ms, reading.created_ms, reading.started_ms or 0, reading.finished_ms or 0)


def _moment(ms: int | None) -> str | None:
    return None if ms is None else moment(ms)
