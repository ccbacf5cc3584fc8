"""The routes of async tasks as OpenAPI."""

from __future__ import annotations

from typing import Any

from ingress.api.openai.openapi_parts import ACCEPTED, TASK_ID, errors
from ingress.api.openapi_parts import COMPLETION, TASK_TEXT, task_id_parameter
from ingress.api.tasks.listing import DEFAULT_LIMIT, MAX_LIMIT
from ingress.api.tasks.serialization import MAX_WAIT_S
from schemas.records import STATES

_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_COMMON = {
    "id": TASK_ID.task(),
    "object": "task",
    "model_code": "smollm2",
    "request_id": ACCEPTED["request_id"],
    "queue": "default",
    "level": 0,
    "endpoint": "/v1/chat/completions",
    "created_at": "2026-01-31T12:00:00Z",
}
_PROCESSING = _COMMON | {
    "status": "processing",
    "progress": 45,
    "updated_at": "2026-01-31T12:00:01Z",
    "started_at": "2026-01-31T12:00:00Z",
    "deadline_at": "2026-02-01T12:00:00Z",
}
_ENDED = _COMMON | {"updated_at": "2026-01-31T12:00:02Z", "expires_at": "2026-02-01T12:00:02Z"}
_COMPLETED = _ENDED | {
    "status": "completed",
    "progress": 100,
    "completed_at": "2026-01-31T12:00:02Z",
    "status_code": 200,
    "usage": {"input_tokens": 15, "output_tokens": 32},
    "result": COMPLETION,
}
_FAILED = _ENDED | {
    "status": "failed",
    "progress": 0,
    "failed_at": "2026-01-31T12:00:02Z",
    "status_code": 408,
    "error_code": "timeout",
    "error_message": "no outcome within 60 s",
}
_CANCELLED = _ENDED | {
    "status": "cancelled",
    "progress": 0,
    "cancelled_at": "2026-01-31T12:00:02Z",
    "status_code": 499,
    "error_code": "cancelled",
    "error_message": "cancelled on request",
}
_NOT_CANCELLABLE = {
    "message": f"task_not_cancellable: task {TASK_TEXT} has ended already (completed)",
    "type": "invalid_request_error",
    "param": None,
    "code": "task_not_cancellable",
}


def paths() -> dict[str, Any]:
    """Describe every route of this door."""
    return {
        "/v1/tasks": {"get": _list()},
        "/v1/tasks/{task_id}": {"get": _get()},
        "/v1/tasks/{task_id}/cancel": {"post": _cancel()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies of this door."""
    return {"AsyncTask": _task_schema(), "TaskList": _list_schema()}


def _get() -> dict[str, Any]:
    prefer = {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": (
            f"`wait=N`: answer as soon as the task has ended, after N seconds (at most {MAX_WAIT_S}) at the latest. "
            "`Preference-Applied` tells that this was done."
        ),
        "schema": _TEXT | {"maxLength": 256},
        "example": "wait=30",
    }
    return {
        "operationId": "getTask",
        "summary": "Show an async task",
        "description": (
            "Works for every task of the caller, whichever route it came through. `result` is the model server's body: "
            "JSON as it came, other text as a string, anything else in base64 (`result_encoding`). Once the retention "
            "of the result is over the status is `expired` and the result is gone; after 7 more days the task is "
            "unknown. `progress` is real for calls that stream and name `max_tokens`, else it goes from 0 to 100. "
            "While a task has not ended, `Retry-After` says when to look again."
        ),
        "parameters": [task_id_parameter(), prefer],
        "responses": {
            "200": _shown({"processing": _PROCESSING, "completed": _COMPLETED, "failed": _FAILED}),
            **errors(401, 403, 404, 503),
        },
    }


def _cancel() -> dict[str, Any]:
    refused = errors(400)["400"]
    content = {"application/json": refused["content"]["application/json"] | {"example": {"error": _NOT_CANCELLABLE}}}
    return {
        "operationId": "cancelTask",
        "summary": "Cancel an async task",
        "description": "A call that runs is closed. The answer is the task: cancelled, or as it stands until that is.",
        "parameters": [task_id_parameter()],
        "responses": {
            "200": _shown({"cancelled": _CANCELLED}),
            "400": {"description": "The task has ended already.", "content": content},
            **errors(401, 403, 404, 503),
        },
    }


def _list() -> dict[str, Any]:
    example = {
        "object": "list",
        "data": [_PROCESSING],
        "first_id": TASK_ID.task(),
        "last_id": TASK_ID.task(),
        "has_more": True,
        "next_cursor": f"1769860800000-{TASK_ID.task()}",
    }
    time = "ISO 8601 (UTC unless it says otherwise) or epoch seconds."
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    schema = {"$ref": "#/components/schemas/TaskList"}
    return {
        "operationId": "listTasks",
        "summary": "List the caller's tasks",
        "description": (
            "Newest first, without results and usage. A page may end before `limit` tasks are found, when it has "
            "looked at many that do not fit: go on with `next_cursor` as long as `has_more` says so."
        ),
        "parameters": [
            _query("status", f"One or several of {', '.join(STATES)}, separated by commas.", _TEXT),
            _query("queue", "Name of the queue.", _TEXT),
            _query("model", "Name of the model.", _TEXT),
            _query("level", "0 online, 1 offline.", {"type": "integer", "enum": [0, 1]}),
            _query("created_after", f"Created then or later: {time}", _TEXT),
            _query("created_before", f"Created before then: {time}", _TEXT),
            _query("limit", "Tasks per page.", limit),
            _query("after", "The page begins behind this: `next_cursor` or the id of a task.", _TEXT),
        ],
        "responses": {
            "200": {"description": "A page.", "content": {"application/json": {"schema": schema, "example": example}}},
            **errors(400, 401, 403, 404, 503),
        },
    }


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _shown(examples: dict[str, Any]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": "#/components/schemas/AsyncTask"},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    headers = {"x-task-id": {"description": "Id of the task, in the TASK- form.", "schema": _TEXT}}
    return {"description": "The task.", "headers": headers, "content": {"application/json": content}}


def _task_schema() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    members: dict[str, tuple[dict[str, Any], str]] = {
        "id": (_TEXT, "task_ and 32 hex digits."),
        "object": ({"const": "task"}, "Always task."),
        "status": ({"type": "string", "enum": list(STATES)}, "Where the task stands; the last four are final."),
        "progress": (count | {"maximum": 100}, "Percent done."),
        "model_code": (_TEXT, "Model named in the request."),
        "request_id": (_TEXT, "req_ and 32 hex digits."),
        "queue": (_TEXT, "Queue."),
        "level": ({"type": "integer", "enum": [0, 1]}, "0 online, 1 offline."),
        "endpoint": (_TEXT, "Path that is called at the model server."),
        "trace_id": (_TEXT, "Yours."),
        "created_at": (_TIME, "When it was accepted."),
        "updated_at": (_TIME, "When it changed last."),
        "started_at": (_TIME, "When a worker began."),
        "deadline_at": (_TIME, "Latest outcome, while it has none."),
        "completed_at": (_TIME, "When it was completed."),
        "failed_at": (_TIME, "When it failed."),
        "cancelled_at": (_TIME, "When it was cancelled."),
        "expires_at": (_TIME, "Until when the result can be fetched."),
        "expired_at": (_TIME, "When the result was given up."),
        "status_code": ({"type": "integer"}, "HTTP status of the outcome."),
        "usage": ({"type": "object", "properties": {"input_tokens": count, "output_tokens": count}}, "Tokens."),
        "result": ({}, "The model server's body."),
        "result_content_type": (_TEXT, "Its media type, when it is not JSON."),
        "result_encoding": ({"const": "base64"}, "When it is no text."),
        "error_code": (_TEXT, "Short name of the failure, such as timeout."),
        "error_message": (_TEXT, "The failure in a sentence."),
    }
    required = ["id", "object", "status", "progress", "request_id", "queue", "level", "created_at", "updated_at"]
    properties = {name: schema | {"description": text} for name, (schema, text) in members.items()}
    return {"type": "object", "required": required, "properties": properties}


def _list_schema() -> dict[str, Any]:
    maybe = {"type": ["string", "null"]}
    return {
        "type": "object",
        "required": ["object", "data", "first_id", "last_id", "has_more", "next_cursor"],
        "properties": {
            "object": {"const": "list", "description": "Always list."},
            "data": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/AsyncTask"},
                "description": "The tasks, without result and usage.",
            },
            "first_id": maybe | {"description": "Id of the first one here."},
            "last_id": maybe | {"description": "Id of the last one here."},
            "has_more": {"type": "boolean", "description": "There may be more."},
            "next_cursor": maybe | {"description": "To be sent as `after` for the next page."},
        },
    }
