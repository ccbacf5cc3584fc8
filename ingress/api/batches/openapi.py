"""The routes of batches as OpenAPI."""

from __future__ import annotations

from typing import Any

from core.deliveries import BATCH_OUTCOMES
from ingress.api.batches.routes import DEFAULT_LIMIT, MAX_BODY, MAX_LIMIT
from ingress.api.batches.serialization import DIALECTS
from ingress.api.files.openapi import FILE_ID, query, range_header, ranges, unsatisfiable
from ingress.api.openapi_parts import COMPLETION, header
from ingress.api.tasks.models import DELIVERY
from ingress.batches.idempotency import HEADER
from ingress.batches.request import ENDPOINTS, EXPIRES, MAX_EXPIRES_S, MAX_PAIRS, MIN_EXPIRES_S
from ingress.http.options import DIALECT, QUEUE
from ingress.submission.resend import MAX_BODY as RESEND_BODY

RESEND_TOO_LARGE = {"description": f"The body is larger than {RESEND_BODY} bytes."}
BATCH_ID = "batch_01b3d0b7b1d5e07c800003e000000001"
_TEXT = {"type": "string"}
_MAYBE = {"type": ["integer", "null"], "description": "Epoch seconds."}
_STATES = (
    "in_queue",
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)
CREATED = {
    "id": BATCH_ID,
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": "smollm2",
    "errors": None,
    "input_file_id": FILE_ID,
    "completion_window": "24h",
    "status": "in_queue",
    "output_file_id": f"file-{BATCH_ID.removeprefix('batch_')}-output",
    "error_file_id": f"file-{BATCH_ID.removeprefix('batch_')}-errors",
    "created_at": 1_769_860_800,
    "in_progress_at": None,
    "expires_at": 1_769_947_200,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": None,
    "usage": None,
    "metadata": {"description": "nightly"},
}
WANTED = {
    "input_file_id": FILE_ID,
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"description": "nightly"},
    "replace": {"model": "smollm2"},
}
LINE = {
    "id": "batch_req_01b3d0b7b1d5e07c800003e000000001",
    "custom_id": "a",
    "response": {"status_code": 200, "request_id": "TASK-1827364554-1-P-260131120000-0003-000000", "body": COMPLETION},
    "error": None,
}

_MADE = DELIVERY | {"id": f"{BATCH_ID}-{BATCH_OUTCOMES[0]}", "event": BATCH_OUTCOMES[0]}
_TOLD = {"object": "list", "batch_id": BATCH_ID, "data": [_MADE]}


def paths() -> dict[str, Any]:
    """Describe the routes."""
    one = "/v1/batches/{batch_id}"
    return {
        "/v1/batches": {"post": _create(), "get": _list()},
        one: {"get": _look()},
        f"{one}/cancel": {"post": _cancel()},
        f"{one}/output": {"get": _content("Output", "Fetch the good answers of a batch")},
        f"{one}/errors": {"get": _content("Errors", "Fetch the bad answers of a batch")},
        f"{one}/deliveries": {"get": _deliveries()},
        f"{one}/deliveries/resend": {"post": _resend()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies."""
    metadata = {
        "type": ["object", "null"],
        "additionalProperties": {"type": "string", "maxLength": 512},
        "description": f"At most {MAX_PAIRS} pairs; keys up to 64 characters. `callback_url` is told of the end.",
    }
    wanted = {
        "input_file_id": _TEXT | {"description": "A file of the purpose batch."},
        "endpoint": {"enum": [*ENDPOINTS]},
        "completion_window": _TEXT | {"description": "Whole hours from 24h to 336h, or days from 1d to 14d."},
        "metadata": metadata,
        "replace": {"type": ["object", "null"], "description": "Merged into the body of every line; it wins."},
        EXPIRES: _expires(),
    }
    counts = {name: {"type": "integer"} for name in ("total", "completed", "failed")}
    batch = {name: _MAYBE if name.endswith("_at") else {"type": ["string", "null"]} for name in CREATED} | {
        "object": {"const": "batch"},
        "status": {"enum": [*_STATES], "description": "in_queue in SiliconFlow's dialect is validating in OpenAI's."},
        "errors": {
            "type": ["array", "object", "null"],
            "description": "What is wrong with the file: sentences, or in OpenAI's dialect a list of objects.",
        },
        "request_counts": {"type": ["object", "null"], "properties": counts, "description": "Null while in_queue."},
        "usage": {"type": ["object", "null"], "description": "Tokens of all lines."},
        "output_file_id": {
            "type": ["string", "null"],
            "description": "Known and readable from the start; null when it has ended without any.",
        },
        "metadata": metadata,
        "file_name": {"type": ["string", "null"], "description": "In lists of SiliconFlow's dialect alone."},
    }
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/Batch"}}
    maybe = {"type": ["string", "null"]}
    page = {"object": {"const": "list"}, "data": listed, "first_id": maybe, "last_id": maybe}
    delivery = {"type": "array", "items": {"$ref": "#/components/schemas/CallbackDelivery"}}
    told = {"object": {"const": "list"}, "batch_id": _TEXT, "data": delivery}
    required = ["input_file_id", "endpoint", "completion_window"]
    return {
        "Batch": {"type": "object", "properties": batch},
        "BatchRequest": {"type": "object", "required": required, "properties": wanted},
        "BatchDeliveryList": {"type": "object", "properties": told},
        "BatchList": {"type": "object", "properties": {**page, "has_more": {"type": "boolean"}}},
    }


def _create() -> dict[str, Any]:
    content = {"schema": {"$ref": "#/components/schemas/BatchRequest"}, "example": WANTED}
    return {
        "operationId": "createBatch",
        "summary": "Create a batch",
        "description": (
            "The file is checked in the background: what is wrong with it is found by looking at the batch. Every "
            "line then becomes an ordinary offline task of the batch's queue."
        ),
        "parameters": [
            *_dialect(),
            header(QUEUE, "Queue of its lines; `batches.queue` unless given.", 64),
            header(HEADER, "The same key and the same body within 24 h are the same batch.", 256),
        ],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": _answer("Batch", "Accepted.", CREATED),
            "413": {"description": f"The body is larger than {MAX_BODY} bytes."},
            "422": {"description": f"The {HEADER} was used with another body."},
            "429": {"description": "Too many submits."},
        },
    }


def _list() -> dict[str, Any]:
    words = {
        "after": ("The id of the last batch of the page before.", {"type": "string", "maxLength": 128}),
        "limit": (
            "Batches of a page.",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        ),
    }
    entry = CREATED | {"file_name": "requests.jsonl"}
    page = {"object": "list", "data": [entry], "first_id": BATCH_ID, "last_id": BATCH_ID, "has_more": False}
    return {
        "operationId": "listBatches",
        "summary": "List batches",
        "description": "The caller's own, the newest first.",
        "parameters": [*query(words), *_dialect()],
        "responses": {"200": _answer("BatchList", "A page.", page), "400": _WRONG},
    }


def _look() -> dict[str, Any]:
    return {
        "operationId": "retrieveBatch",
        "summary": "Show a batch",
        "parameters": [_batch_id(), *_dialect()],
        "responses": {"200": _answer("Batch", "The batch as it stands.", CREATED), "400": _WRONG, "404": _MISSING},
    }


def _cancel() -> dict[str, Any]:
    shown = CREATED | {"status": "cancelling", "cancelling_at": 1_769_860_860}
    return {
        "operationId": "cancelBatch",
        "summary": "Cancel a batch",
        "description": (
            "No further line runs, running ones are closed, and what did not run is in the error file as "
            "batch_cancelled. Once more changes nothing; 400 when it has ended in another way."
        ),
        "parameters": [_batch_id(), *_dialect()],
        "responses": {"200": _answer("Batch", "It is being cancelled.", shown), "400": _WRONG, "404": _MISSING},
    }


def _content(name: str, summary: str) -> dict[str, Any]:
    whole = {
        "description": "Lines of JSON in no order, those that are there by now; none is an empty body.",
        "content": {"application/jsonl": {"schema": _TEXT, "example": LINE}},
    }
    return {
        "operationId": f"downloadBatch{name}",
        "summary": summary,
        "description": "Also while the batch runs. The same as the content of its file.",
        "parameters": [_batch_id(), *_dialect(), range_header()],
        "responses": {**ranges({"200": whole}), "400": _WRONG, "404": _MISSING, "416": unsatisfiable()},
    }


def _deliveries() -> dict[str, Any]:
    return {
        "operationId": "listBatchDeliveries",
        "summary": "Show the callbacks of a batch",
        "description": "Of its end alone: every attempt, and when the next one is due; kept for eight days.",
        "parameters": [_batch_id(), *_dialect()],
        "responses": {
            "200": _answer("BatchDeliveryList", "The callbacks; none before the first attempt is over.", _TOLD),
            "400": _WRONG,
            "404": _MISSING,
        },
    }


def _resend() -> dict[str, Any]:
    return {
        "operationId": "resendBatchDelivery",
        "summary": "Send the callback of a batch again",
        "description": (
            "A new round at once, with all its attempts, even to a URL that has answered 410. 400 when the batch has "
            "not ended, has no callback_url, or told of its end more than eight days ago."
        ),
        "parameters": [_batch_id(), *_dialect()],
        "requestBody": _resend_body(),
        "responses": {
            "202": _answer("BatchDeliveryList", "The callback as it waits now.", _TOLD),
            "400": _WRONG,
            "404": _MISSING,
            "413": RESEND_TOO_LARGE,
        },
    }


def _resend_body() -> dict[str, Any]:
    event = {"enum": [*BATCH_OUTCOMES], "description": "Without it the outcome."}
    schema = {"type": "object", "properties": {"event": event}, "additionalProperties": False}
    return {"content": {"application/json": {"schema": schema, "example": {"event": BATCH_OUTCOMES[0]}}}}


def _expires() -> dict[str, Any]:
    seconds = {"type": "integer", "minimum": MIN_EXPIRES_S, "maximum": MAX_EXPIRES_S}
    return {
        "type": ["object", "null"],
        "required": ["anchor", "seconds"],
        "additionalProperties": False,
        "properties": {"anchor": {"const": "created_at"}, "seconds": seconds},
        "description": "When output and error file expire, counted from the end of the batch; by default with it.",
    }


_WRONG = {"description": "A parameter or header is wrong, or it is too late."}
_MISSING = {"description": "No such batch, or it belongs to another tenant."}


def _dialect() -> list[dict[str, Any]]:
    schema = {"enum": [*DIALECTS]}
    text = "How the answer looks; the setting `batches.dialect` unless given."
    return [{"name": DIALECT, "in": "header", "required": False, "description": text, "schema": schema}]


def _batch_id() -> dict[str, Any]:
    return {"name": "batch_id", "in": "path", "required": True, "description": "The batch.", "schema": _TEXT}


def _answer(schema: str, description: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"description": description, "content": {"application/json": content}}
