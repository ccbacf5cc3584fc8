"""The routes of a task's callbacks as OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.deliveries import BATCH_OUTCOMES
from ingress.api.openapi_parts import TASK_TEXT, task_id_parameter
from ingress.submission.resend import MAX_BODY
from schemas.validation import CALLBACK_EVENTS

_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
DELIVERY = {
    "id": f"{TASK_TEXT}-completed",
    "object": "delivery",
    "event": "completed",
    "url": "http://127.0.0.1:9000/done",
    "status": "pending",
    "attempts_made": 1,
    "next_attempt_at": "2026-01-31T12:00:06Z",
    "attempts": [
        {
            "attempted_at": "2026-01-31T12:00:01Z",
            "status_code": 503,
            "latency_ms": 12,
            "reason": "the receiver answered 503",
        }
    ],
}
RESEND_TOO_LARGE = {"description": f"The body is larger than {MAX_BODY} bytes."}
_GONE = {"description": "The result is not kept any more."}
_EXAMPLE = {"object": "list", "task_id": TASK_TEXT, "data": [DELIVERY]}


def paths() -> dict[str, Any]:
    """Describe the routes."""
    return {
        "/v1/tasks/{task_id}/deliveries": {"get": _list()},
        "/v1/tasks/{task_id}/deliveries/resend": {"post": _resend()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies."""
    attempt = {
        "type": "object",
        "properties": {
            "attempted_at": _TIME,
            "status_code": {"type": ["integer", "null"], "description": "Null when the receiver gave none."},
            "latency_ms": {"type": "integer"},
            "reason": _TEXT,
        },
    }
    delivery = {
        "type": "object",
        "properties": {
            "id": _TEXT | {"description": "The webhook-id header, the same in every attempt."},
            "object": {"const": "delivery"},
            "event": {"enum": [*CALLBACK_EVENTS, *BATCH_OUTCOMES]},
            "url": _TEXT,
            "status": {"enum": ["pending", "delivered", "failed", "disabled"]},
            "attempts_made": {"type": "integer"},
            "next_attempt_at": {"type": ["string", "null"], "format": "date-time"},
            "attempts": {"type": "array", "items": attempt, "description": "The newest 20, the oldest first."},
        },
    }
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/Delivery"}}
    properties = {"object": {"const": "list"}, "task_id": _TEXT, "data": listed}
    return {"Delivery": delivery, "DeliveryList": {"type": "object", "properties": properties}}


def _list() -> dict[str, Any]:
    return {
        "operationId": "listDeliveries",
        "summary": "Show the callbacks of a task",
        "description": "Every attempt with its status and time, and when the next one is due; kept for eight days.",
        "parameters": [task_id_parameter()],
        "responses": {"200": _answer("The callbacks, the oldest first; none before the first attempt is over.")},
    }


def resend_body(events: Sequence[str], example: str) -> dict[str, Any]:
    """Describe the body that begins a new round."""
    event = {"enum": [*events], "description": "Without it the outcome."}
    schema = {"type": "object", "properties": {"event": event}, "additionalProperties": False}
    return {"content": {"application/json": {"schema": schema, "example": {"event": example}}}}


def _resend() -> dict[str, Any]:
    return {
        "operationId": "resendDelivery",
        "summary": "Send a callback again",
        "description": "A new round at once, with all its attempts, even to a URL that has answered 410.",
        "parameters": [task_id_parameter()],
        "requestBody": resend_body(CALLBACK_EVENTS, "completed"),
        "responses": {"202": _answer("The callback as it waits now."), "410": _GONE, "413": RESEND_TOO_LARGE},
    }


def _answer(description: str) -> dict[str, Any]:
    content = {"schema": {"$ref": "#/components/schemas/DeliveryList"}, "example": _EXAMPLE}
    return {"description": description, "content": {"application/json": content}}
