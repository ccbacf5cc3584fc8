"""The frames of a task's events beside those of its text. Pure.

They carry no id, so that a client's last id stays that of the last frame of text; the end has one of its own.
"""

from __future__ import annotations

from typing import Any

import orjson

from ingress.api.openai_error import error_frame
from ingress.http import sse
from ingress.task_events.position import END
from ingress.waiting.streaming import StreamError
from schemas import ids
from schemas.records import Status

KEEP_ALIVE = sse.KEEP_ALIVE
DONE = b"id: %b\n" % (END.tag or "").encode() + sse.frame(sse.DONE)
SHUTDOWN = StreamError(
    "this process is shutting down; the task goes on, come again with Last-Event-ID",
    "server_error",
    "server_shutdown",
)
BROKEN = StreamError("an unexpected error occurred; come again with Last-Event-ID", "server_error", "internal_error")
INTERRUPTED = StreamError(
    "what was read before is not the text that counts; open the events again without Last-Event-ID",
    "server_error",
    "stream_interrupted",
)
LOST = StreamError("the text of this task is not kept completely any more", "server_error", "text_lost")
EXPIRED = StreamError("the result of this task is not kept any more", "invalid_request_error", "expired")


def status_of(row: Status) -> bytes:
    """Render where a row stands."""
    progress = 100 if row["state"] == "completed" else row["progress"]
    return status_frame(
        row["id"], row["state"], row["attempt"], progress, code=row["error_code"], message=row["error_message"]
    )


def status_frame(
    task_id: str, state: str, attempt: int, progress: int = 0, *, code: str | None = None, message: str | None = None
) -> bytes:
    """Render where a task stands; members without a value are left out."""
    members: dict[str, Any] = {
        "id": ids.parse(task_id).task(),
        "status": state,
        "attempt": attempt,
        "progress": progress,
        "error_code": code,
        "error_message": message,
    }
    return _named(b"status", {name: value for name, value in members.items() if value is not None})


def progress_frame(task_id: str, progress: int) -> bytes:
    """Render how far a task is, in percent."""
    return _named(b"progress", {"id": ids.parse(task_id).task(), "progress": progress})


def failure_frame(failure: StreamError) -> bytes:
    """Render why there is no more to come; an error object of the upstream is kept as it is."""
    return sse.frame(error_frame(failure.result, message=failure.message, kind=failure.type, code=failure.code))


def _named(event: bytes, members: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event, orjson.dumps(members))
