"""The Bella routes as OpenAPI."""

from __future__ import annotations

from typing import Any

from ingress.api.bella import queue_openapi
from ingress.api.openapi_parts import CHAT, COMPLETION, IDEMPOTENCY, STREAM, TASK_TEXT, header, task_id_parameter
from schemas.validation import CALLBACK_EVENTS

_ERRORS = {
    400: ("A member of the body is missing or wrong.", "data is required", "data"),
    401: ("The key is missing or not known.", "the API key is not known", None),
    404: ("No such task, or it belongs to another key.", f"there is no task {TASK_TEXT}", None),
    408: ("The task timed out and was cancelled; `x-should-retry: false` is set.", "the task timed out", None),
    413: ("The body is larger than ingress.max_body_bytes.", "the body is larger than 16777216 bytes", "body"),
    410: (
        "The first task with this Idempotency-Key has ended and its result is not kept any more.",
        f"the result of {TASK_TEXT} is not kept any more",
        None,
    ),
    422: (
        "The Idempotency-Key was used for another request.",
        f"this Idempotency-Key was used for {TASK_TEXT} with another endpoint or body",
        "Idempotency-Key",
    ),
    502: ("The upstream could not be reached or broke off.", "the upstream closed the connection", None),
    503: (
        "Kafka or every upstream is away, or too many wait; `Retry-After` is set when nothing was accepted.",
        "Kafka cannot be reached now; nothing was accepted, try again in some seconds",
        None,
    ),
}


def paths() -> dict[str, Any]:
    """Describe every route of this door."""
    return {
        "/v1/queue/put": {"post": _put()},
        **queue_openapi.paths(_errors),
        "/v1/queue/{task_id}": {"get": _get()},
        "/v1/queue/{task_id}/cancel": {"post": _cancel()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies of this door."""
    return {"Put": _put_schema(), "Task": _task_schema(), "Error": _error_schema()}


def _put() -> dict[str, Any]:
    body = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": CHAT}
    task_id = {"x-task-id": {"description": "Id of the task.", "schema": {"type": "string"}}}
    return {
        "operationId": "put",
        "summary": "Submit a task",
        "description": (
            "The answer depends on `response_mode`. callback: the task id at once, and the outcome is posted to "
            "`callback_url` as `{status_code, request_id, body}`. blocking: the upstream's own status and body. "
            "streaming: the upstream's stream as server-sent events, with comment lines while it is silent; an error "
            'is a frame `{"error": {...}}` without [DONE]. A client that goes away cancels its blocking or streaming '
            "task, unless it sent an Idempotency-Key: then the same request may be sent again for the answer."
        ),
        "parameters": [
            header(
                "Idempotency-Key",
                IDEMPOTENCY,
                256,
            ),
            header("traceparent", "W3C trace context, passed on with the task.", 256),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Put"},
                    "examples": {
                        "callback": {"value": body | {"callback_url": "http://127.0.0.1:9000/done"}},
                        "blocking": {"value": body | {"response_mode": "blocking", "timeout": 60}},
                        "streaming": {"value": body | {"response_mode": "streaming"}},
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "Accepted (callback), or the upstream's answer (blocking, streaming).",
                "headers": task_id,
                "content": {
                    "application/json": {
                        "examples": {
                            "callback": {"value": {"code": 200, "timestamp": 1_769_860_800_000, "data": TASK_TEXT}},
                            "blocking": {"value": COMPLETION},
                        }
                    },
                    "text/event-stream": {"example": STREAM},
                },
            },
            **_errors(400, 401, 408, 410, 413, 422, 502, 503),
        },
    }


def _get() -> dict[str, Any]:
    task = {
        "task_id": TASK_TEXT,
        "endpoint": "/v1/chat/completions",
        "queue": "chat",
        "level": 0,
        "data": CHAT,
        "status": "succeeded",
        "start_time": 1_769_860_800_000,
        "expire_time": 1_769_947_200_000,
        "running_time": 1_769_860_800_012,
        "completed_time": 1_769_860_801_250,
        "response_mode": "callback",
        "result": {"status_code": 200, "request_id": TASK_TEXT, "body": COMPLETION},
    }
    schema = {"$ref": "#/components/schemas/Task"}
    return {
        "operationId": "get",
        "summary": "Show a task",
        "parameters": [task_id_parameter()],
        "responses": {
            "200": {
                "description": "The task as it stands; members without a value are left out.",
                "content": {"application/json": {"schema": schema, "example": task}},
            },
            **_errors(401, 404, 503),
        },
    }


def _cancel() -> dict[str, Any]:
    schema = {"type": "string"}
    done = "The task is cancelled, or will be as soon as the scheduler reads it; the id as a JSON string."
    return {
        "operationId": "cancel",
        "summary": "Cancel a task",
        "description": (
            "Works in every mode and from any ingress. A task that waits never reaches the model server; the "
            "connection of one that runs is closed. A task that has ended is a 400 `task_not_cancellable`."
        ),
        "parameters": [task_id_parameter()],
        "responses": {
            "202": {"description": done, "content": {"application/json": {"schema": schema, "example": TASK_TEXT}}},
            **_errors(400, 401, 404, 503),
        },
    }


def _put_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["queue", "endpoint", "data"],
        "properties": {
            "queue": text | {"pattern": "^[a-zA-Z0-9_-]{1,64}$", "description": "Registered on first use."},
            "endpoint": text | {"description": "Path of the upstream API, such as /v1/chat/completions."},
            "level": {"enum": [0, 1], "default": 0, "description": "0 online; 1 offline, in callback mode only."},
            "data": {"type": "object", "description": "Body for the upstream; passed on as it is, but for `stream`."},
            "response_mode": {"enum": ["callback", "blocking", "streaming"], "default": "callback"},
            "callback_url": text | {"description": "Where the outcome is posted; without it poll the task."},
            "callback_events": {
                "type": "array",
                "items": {"enum": [*CALLBACK_EVENTS]},
                "description": "What callback_url is told of; without it of the outcome alone.",
            },
            "timeout": {
                "type": "integer",
                "minimum": 1,
                "description": "Seconds until the latest outcome; 300 blocking and streaming, 86400 callback.",
            },
            "start_timeout": _seconds("Seconds until a worker must have begun; else it ends as start_timeout."),
            "run_timeout": _seconds("Seconds that one call may take; a longer one is ended and tried again."),
            "result_retention": _seconds("Seconds the result can be fetched, 86400 by default, at most 604800."),
            "trace_id": text | {"maxLength": 256, "description": "Yours, to find tasks that belong together."},
        },
        "additionalProperties": False,
    }


def _seconds(description: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "description": description}


def _task_schema() -> dict[str, Any]:
    text, when = {"type": "string"}, {"type": "integer", "description": "Epoch milliseconds."}
    result = {"type": "object", "properties": {"status_code": {"type": "integer"}, "request_id": text, "body": {}}}
    return {
        "type": "object",
        "properties": {
            "task_id": text,
            "endpoint": text,
            "queue": text,
            "level": {"enum": [0, 1]},
            "data": {"type": "object"},
            "status": {"enum": ["waiting", "queued", "succeeded", "failed", "timeout", "cancelled"]},
            "start_time": when,
            "expire_time": when,
            "running_time": when,
            "completed_time": when,
            "callback_url": text,
            "response_mode": text,
            "trace_id": text,
            "result": result,
        },
    }


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status again."},
            "message": {"type": "string"},
            "timestamp": {"type": "integer", "description": "Epoch milliseconds."},
            "field": {"type": "string", "description": "The member that is wrong."},
        },
    }


def _errors(*statuses: int) -> dict[str, Any]:
    out = {}
    for status in statuses:
        description, message, field = _ERRORS[status]
        example: dict[str, Any] = {"code": status, "message": message, "timestamp": 1_769_860_800_000}
        if field is not None:
            example["field"] = field
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "example": example}}
        out[str(status)] = {"description": description, "content": content}
    return out
