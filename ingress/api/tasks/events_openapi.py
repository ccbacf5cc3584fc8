"""The events of a task as OpenAPI."""

from __future__ import annotations

from typing import Any

from ingress.api.openapi_parts import task_id_parameter

_EXAMPLE = (
    'event: status\ndata: {"id":"task_…","status":"processing","attempt":1,"progress":0}\n\n'
    'id: 1-8f2c01d4-1\ndata: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Blue"}}]}\n\n'
    ": keep-alive\n"
    'event: progress\ndata: {"id":"task_…","progress":50}\n\n'
    'id: 1-8f2c01d4-2\ndata: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" sky"}}]}\n\n'
    'event: status\ndata: {"id":"task_…","status":"completed","attempt":1,"progress":100}\n\n'
    "id: end\ndata: [DONE]\n\n"
)
_DESCRIPTION = (
    "Server-sent events of any task of yours, whatever its mode, level or door, on any ingress; open it before, during "
    "or after the run, as often as you like. Leaving cancels nothing.\n\n"
    "- `event: status`: where the task stands, first as it is now, then every change of `status` or `attempt`: `id`, "
    "`status` (queued, processing, completed, failed, cancelled, expired), `attempt`, `progress`, and `error_code` and "
    "`error_message` of a failed one. The same status comes again with a new attempt only. No id.\n"
    "- `event: progress`: `id` and `progress` in percent, where it is known while the task runs. No id.\n"
    "- Frames without a name carry an id. Of a streamed task they are the upstream's chunks, byte for byte, from the "
    "first. Any other task has one: the body of its answer, when that is JSON or text; for other bodies fetch the "
    "task.\n"
    '- A task that did not complete: `data: {"error": {…}}` without an id, unless the upstream\'s last chunk said it.\n'
    "- The last frame is `data: [DONE]` with the id `end`; who comes again with that gets a 204, at which a browser's "
    "EventSource stops. A stream that ends without it was cut: come again, to any ingress, with the "
    "last id. A planned stop of the process says so in an error frame `server_shutdown` before.\n\n"
    "An id is ATTEMPT-RUN-COUNT: that many frames of that run have been sent. It is the same on every ingress, and "
    "whether the frame comes from the log or from the stored result. A client that has read a stream without ids, as "
    "those of the calls are, may give the number of data frames it has instead. While nothing is said, comment lines "
    "keep the connection open.\n\n"
    "Chunks are kept for an hour, after that the text comes from the result as long as that is kept. What had been "
    "delivered of a task that a lost worker, a cancel or its time-out ended is gone after that hour."
)


def paths() -> dict[str, Any]:
    """Describe the route."""
    return {"/v1/tasks/{task_id}/events": {"get": _events()}}


def schemas() -> dict[str, Any]:
    """Describe the bodies: none of its own."""
    return {}


def _events() -> dict[str, Any]:
    position = {"type": "string", "pattern": "^(([1-9][0-9]{0,8}-[0-9a-f]{8}-)?[0-9]{1,9}|end)$"}
    description = "Go on after this frame: its id, or the number of data frames that were read."
    return {
        "operationId": "follow_task",
        "summary": "Follow a task",
        "description": _DESCRIPTION,
        "parameters": [
            task_id_parameter(),
            {"name": "Last-Event-ID", "in": "header", "description": description, "schema": position},
            {
                "name": "from",
                "in": "query",
                "description": "The same for clients that cannot set the header, which counts more.",
                "schema": position,
            },
        ],
        "responses": {
            "200": {
                "description": "The events; they end with the task.",
                "headers": {"x-task-id": {"description": "Id of the task.", "schema": {"type": "string"}}},
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            "204": {"description": "The end was told already: the last id is `end`."},
            "400": _refusal("Last-Event-ID or from is malformed, or the query holds anything else."),
            "401": _refusal("The key is missing or not known."),
            "403": _refusal("The key may not read tasks."),
            "404": _refusal("No such task, or it belongs to another key."),
            "503": _refusal("Kafka cannot be reached, or too many event streams are open."),
        },
    }


def _refusal(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}
