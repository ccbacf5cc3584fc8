"""The completion-messages routes as OpenAPI."""

from __future__ import annotations

from typing import Any

from core.settings.models import DifySettings, QueueSettings
from ingress.api.dify.app_info import info, meta, parameters
from ingress.api.openapi_parts import IDEMPOTENCY, header
from ingress.http.options import DESCRIPTIONS, QUEUE, RETENTION, RUN_TIMEOUT, START_TIMEOUT, TIMEOUT

ID = "1b2d5f0a-0000-8000-8c3a-00000c042680"
CREATED = 1_769_860_800
USAGE = {
    "prompt_tokens": 1033,
    "prompt_unit_price": "0.001",
    "prompt_price_unit": "0.001",
    "prompt_price": "0.0010330",
    "completion_tokens": 128,
    "completion_unit_price": "0.002",
    "completion_price_unit": "0.001",
    "completion_price": "0.0002560",
    "total_tokens": 1161,
    "total_price": "0.0012890",
    "currency": "USD",
    "latency": 0.768,
}
ANSWER = {
    "event": "message",
    "task_id": ID,
    "id": ID,
    "message_id": ID,
    "mode": "completion",
    "answer": "Blue light…",
    "metadata": {"usage": USAGE, "retriever_resources": []},
    "created_at": CREATED,
}
EVENTS = (
    f'data: {{"event":"message","task_id":"{ID}","id":"{ID}","message_id":"{ID}","created_at":{CREATED},'
    '"answer":"Blue"}\n\nevent: ping\n\n'
    f'data: {{"event":"message_end","task_id":"{ID}","id":"{ID}","message_id":"{ID}","created_at":{CREATED},'
    '"metadata":{"usage":{},"retriever_resources":[]},"files":null}\n\n'
)
FILE = {
    "id": "6f1c7a52-8f0e-4d0b-9a64-0c8a3f2f9b11",
    "name": "mill.png",
    "size": 1024,
    "extension": "png",
    "mime_type": "image/png",
    "created_by": "abc-123",
    "created_at": CREATED,
    "preview_url": None,
    "source_url": None,
    "original_url": None,
    "user_id": "abc-123",
    "tenant_id": "key-0123456789ab",
    "conversation_id": None,
    "file_key": None,
    "reference": None,
}
_ERRORS = {
    400: (
        "A field is wrong, or the model's call failed.",
        "completion_request_error",
        "the upstream answered 500",
    ),
    401: ("The key is missing or not known.", "unauthorized", "the API key is not known"),
    403: ("The key lacks a scope.", "forbidden", "this needs a key with the scope submit"),
    404: ("No such message of this user.", "not_found", "there is no such message of this user"),
    410: ("The first task with this Idempotency-Key has ended and its result is gone.", "gone", "is not kept any more"),
    413: (
        "The body or the file is too large.",
        "file_too_large",
        "an image must be at most 10485760 bytes",
    ),
    415: ("Files of this type are not taken.", "unsupported_file_type", "files of this type are not taken"),
    422: ("The Idempotency-Key was used for another request.", "idempotency_conflict", "this Idempotency-Key was used"),
    429: ("The key has used up its requests, or the queue is full.", "too_many_requests", "too many requests"),
    503: ("Kafka cannot be reached, or too many wait.", "unavailable", "Kafka cannot be reached now"),
}
_TEXT = {"type": "string"}


def paths() -> dict[str, Any]:
    """Describe every route of this door, each with and without /v1."""
    found = {
        "/completion-messages": {"post": _create()},
        "/completion-messages/{task_id}/stop": {"post": _stop()},
        "/files/upload": {"post": _upload()},
        "/messages/{message_id}/feedbacks": {"post": _feedback()},
        "/parameters": {"get": _told("Inputs and limits of a queue", parameters(QueueSettings(), DifySettings()))},
        "/info": {"get": _told("Name of a queue's application", info("default"))},
        "/meta": {"get": _told("Tools of a queue's application: none", meta())},
    }
    return {prefix + path: methods for path, methods in found.items() for prefix in ("", "/v1")}


def schemas() -> dict[str, Any]:
    """Describe the bodies of this door."""
    file = {
        "type": "object",
        "required": ["type", "transfer_method"],
        "properties": {
            "type": {"enum": ["image", "document", "audio", "video", "custom"], "description": "Only image is passed."},
            "transfer_method": {"enum": ["remote_url", "local_file"]},
            "url": _TEXT | {"description": "With remote_url; the model server fetches it."},
            "upload_file_id": _TEXT | {"description": "With local_file: the id that files/upload gave the same user."},
        },
    }
    return {
        "CompletionMessage": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "inputs": {"type": "object", "minProperties": 1, "description": "query, or what the template names."},
                "query": _TEXT,
                "response_mode": {"enum": ["blocking", "streaming", None], "default": "blocking"},
                "user": _TEXT | {"maxLength": 256, "default": "DEFAULT-USER", "description": "Your end user."},
                "files": {"type": ["array", "null"], "items": file},
            },
        },
        "DifyError": {
            "type": "object",
            "properties": {
                "code": _TEXT,
                "message": _TEXT,
                "status": {"type": "integer"},
                "params": _TEXT | {"description": "The member that is wrong."},
            },
        },
    }


def _create() -> dict[str, Any]:
    body = {"inputs": {"query": "Why is the sky blue?"}, "user": "abc-123"}
    picture = {"type": "image", "transfer_method": "remote_url", "url": "http://127.0.0.1:9000/mill.png"}
    examples = {
        "blocking": {"value": body | {"response_mode": "blocking"}},
        "streaming": {"value": body | {"response_mode": "streaming"}},
        "picture": {"value": body | {"files": [picture]}},
    }
    content = {"schema": {"$ref": "#/components/schemas/CompletionMessage"}, "examples": examples}
    answers = {"application/json": {"example": ANSWER}, "text/event-stream": {"example": EVENTS}}
    return {
        "summary": "Complete a prompt",
        "description": (
            "The prompt is inputs.query, else query; a queue with `prompt` in its settings has its template filled "
            "from inputs. The model is the queue's `model`, else the first that the upstreams list. A stream has "
            "events message, message_end and error, `event: ping` every 10 s, and no [DONE]."
        ),
        "parameters": [
            *(header(name, DESCRIPTIONS[name], 64) for name in (QUEUE, TIMEOUT, START_TIMEOUT, RUN_TIMEOUT, RETENTION)),
            header("Idempotency-Key", IDEMPOTENCY, 256),
            header("traceparent", "W3C trace context, passed on with the task.", 256),
        ],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": {"description": "The answer, or its stream.", "content": answers},
            **_errors(400, 401, 403, 410, 413, 422, 429, 503),
        },
    }


def _stop() -> dict[str, Any]:
    return {
        "summary": "Stop a stream",
        "description": (
            "Works for the user who began it, from any ingress; its stream then ends with message_end and the usage of "
            "the text so far. Any other task is left alone, and the answer is the same."
        ),
        "parameters": [_id("task_id", "task_id of the stream's events.")],
        "requestBody": _json({"user": "abc-123"}),
        "responses": {"200": _ok({"result": "success"}), **_errors(400, 401, 403, 413, 503)},
    }


def _upload() -> dict[str, Any]:
    fields = {"file": _TEXT | {"format": "binary"}, "user": _TEXT | {"maxLength": 256, "default": "DEFAULT-USER"}}
    form = {"multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": fields}}}
    return {
        "summary": "Upload a file for completion-messages",
        "description": "Only the same user may name it, for `dify.upload_retention_s`. Limits: `dify.max_*_bytes`.",
        "requestBody": {"required": True, "content": form},
        "responses": {"201": _ok(FILE), **_errors(400, 401, 403, 413, 415, 503)},
    }


def _feedback() -> dict[str, Any]:
    return {
        "summary": "Rate an answer",
        "description": "Kept in the object store as feedbacks/TASK-….json; the last word counts.",
        "parameters": [_id("message_id", "message_id of the answer.")],
        "requestBody": _json({"rating": "like", "user": "abc-123", "content": "helpful"}),
        "responses": {"200": _ok({"result": "success"}), **_errors(400, 401, 403, 404, 413, 503)},
    }


def _told(summary: str, example: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": [header(QUEUE, DESCRIPTIONS[QUEUE], 64)],
        "responses": {"200": _ok(example), **_errors(400, 401, 403)},
    }


def _id(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": _TEXT}


def _json(example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"type": "object"}, "example": example}}}


def _ok(example: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Done.", "content": {"application/json": {"example": example}}}


def _errors(*statuses: int) -> dict[str, Any]:
    out = {}
    for status in statuses:
        description, code, message = _ERRORS[status]
        example = {"code": code, "message": message, "status": status}
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/DifyError"}, "example": example}}
        out[str(status)] = {"description": description, "content": content}
    return out
