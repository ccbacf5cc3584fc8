"""What the OpenAPI descriptions of the doors share: examples, headers, parameters."""

from __future__ import annotations

from typing import Any

TASK_TEXT = "TASK-1827364554-0-C-260131120000-0003-017000"
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 32}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "smollm2",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Blue light…"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 15, "completion_tokens": 32, "total_tokens": 47},
}
STREAM = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Blue"}}]}\n\n'
    ": keep-alive\n"
    "data: [DONE]\n\n"
)
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
