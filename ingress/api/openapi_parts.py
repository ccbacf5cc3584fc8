"""What the OpenAPI descriptions of the doors share: examples, headers, parameters."""

from __future__ import annotations

from typing import Any

from ingress.api.examples import CHAT, COMPLETION, STREAM, TASK_TEXT

__all__ = ["CHAT", "COMPLETION", "IDEMPOTENCY", "STREAM", "TASK_TEXT", "header", "task_id_parameter"]

IDEMPOTENCY = (
    "1 to 256 printable ASCII characters. For 24 h the same request with the same key is the same task; another body "
    "is a 422."
)


def task_id_parameter() -> dict[str, Any]:
    """Describe the id in a path."""
    return {
        "name": "task_id",
        "in": "path",
        "required": True,
        "description": "The id in any rendering: TASK-…, task_…, req_…, batch_req_… or a UUID.",
        "schema": {"type": "string"},
    }


def header(name: str, description: str, longest: int) -> dict[str, Any]:
    """Describe an optional request header."""
    schema = {"type": "string", "maxLength": longest}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
