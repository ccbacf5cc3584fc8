"""Examples and descriptions that several APIs share."""

from __future__ import annotations

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
