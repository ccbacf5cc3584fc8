"""What the descriptions of this API's calls share, whatever form their bodies have: headers, answers, errors."""

from __future__ import annotations

from typing import Any

from ingress.api.openapi_parts import IDEMPOTENCY, TASK_TEXT, header
from ingress.http import options
from schemas.ids import parse

TASK_ID = parse(TASK_TEXT)
LOCATION = f"/v1/tasks/{TASK_ID.task()}"
ACCEPTED = {
    "id": TASK_ID.task(),
    "status": "queued",
    "progress": 0,
    "created_at": "2026-01-31T12:00:00Z",
    "request_id": f"req_{TASK_ID.packed():032x}",
}
_ERRORS = {
    400: (
        "A member or header is missing or wrong; `param` names it. Or the model server's own.",
        "you must provide a model parameter",
        "invalid_request",
        "model",
    ),
    401: ("The key is missing or not known.", "the API key is not known", "invalid_api_key", None),
    403: ("The key may not do this.", "this needs a key with the scope submit; yours has read", "forbidden", None),
    404: (
        "No model server lists this model.",
        "The model `gpt-9` does not exist; GET /v1/models lists those that do",
        "model_not_found",
        "model",
    ),
    410: (
        "The first task with this Idempotency-Key has ended and its result is not kept any more.",
        f"the result of {TASK_TEXT} is not kept any more",
        "gone",
        None,
    ),
    413: (
        "The body is larger than ingress.max_body_bytes, or its files than ingress.max_upload_bytes.",
        "the body is larger than 16777216 bytes",
        "too_large",
        "body",
    ),
    415: (
        "The body is no form.",
        "the body must be of type multipart/form-data",
        "unsupported_media_type",
        "content-type",
    ),
    422: (
        "The Idempotency-Key was used for another request.",
        f"this Idempotency-Key was used for {TASK_TEXT} with another endpoint or body",
        "idempotency_conflict",
        "Idempotency-Key",
    ),
    429: (
        "The key's limit is reached, or the queue is full; `Retry-After` is set when nothing was accepted.",
        "too many requests; try again later",
        "rate_limit_exceeded",
        None,
    ),
    502: ("The model server broke off its answer.", "the upstream broke off its answer", "upstream_cut", None),
    503: (
        "Kafka or every model server is away, or too many wait; `Retry-After` is set when nothing was accepted.",
        "Kafka cannot be reached now; nothing was accepted, try again in some seconds",
        "unavailable",
        None,
    ),
    504: (
        "The wait or the task's time-out is over; after a wait the task goes on. `x-should-retry: false` is set.",
        f"task {TASK_TEXT} has no outcome yet; it goes on, see GET {LOCATION}. Do not send it again",
        "wait_exceeded",
        None,
    ),
}


def call_parameters() -> list[dict[str, Any]]:
    """Describe the headers that every call takes."""
    given = [header(name, text, 2048) for name, text in options.DESCRIPTIONS.items()]
    return [*given, header("Idempotency-Key", IDEMPOTENCY, 256), header("traceparent", "W3C trace context.", 256)]


def call_responses(content: dict[str, Any]) -> dict[str, Any]:
    """Describe the answers that every call may get; `content` is that of the good one."""
    schema = {"$ref": "#/components/schemas/AcceptedTask"}
    return {
        "200": {"description": "The model server's answer.", "headers": task_headers(), "content": content},
        "202": {
            "description": "Accepted (async): look at `Location`, after `Retry-After` seconds.",
            "headers": {**task_headers(), "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
            "content": {"application/json": {"schema": schema, "example": ACCEPTED}},
        },
        **errors(400, 401, 403, 404, 410, 413, 422, 429, 502, 503, 504),
    }


def task_headers() -> dict[str, Any]:
    """Describe the headers that name the task."""
    text = {"type": "string"}
    return {
        "x-task-id": {"description": "Id of the task, in the TASK- form.", "schema": text},
        "Location": {"description": "Where the task is shown.", "schema": text, "example": LOCATION},
    }


def errors(*statuses: int) -> dict[str, Any]:
    """Describe error answers in the form of this API."""
    found = {}
    for status in statuses:
        description, message, code, param = _ERRORS[status]
        kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
        example = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}, "example": example}}
        found[str(status)] = {"description": description, "content": content}
    return found


def accepted_schema() -> dict[str, Any]:
    """Describe the answer to an async call."""
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "id": text | {"description": "task_ and 32 hex digits."},
            "status": {"enum": ["queued", "processing", "completed", "failed", "cancelled", "expired"]},
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "created_at": text | {"format": "date-time"},
            "request_id": text,
        },
    }


def error_schema() -> dict[str, Any]:
    """Describe the error form."""
    text = {"type": "string"}
    maybe = {"type": ["string", "null"]}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": text, "type": text, "param": maybe, "code": maybe},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": error}}
