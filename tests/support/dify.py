"""What the wire tests of the Dify dialect share."""

from __future__ import annotations

import json
from typing import Any

import httpx

from schemas import topics
from schemas.codec import TASK
from schemas.records import Task
from tests.support.memory_ingress import Memory

URL = "/completion-messages"
BODY = {"inputs": {"query": "Hello, world!"}, "response_mode": "blocking", "user": "abc-123"}
DIFY: dict[str, Any] = {
    "ingress": {"max_body_bytes": 20_000, "max_blocking_requests": 2, "keep_alive_s": 0.05},
    "models": {"priced": {"prompt_price": 0.001, "completion_price": 0.002}},
    "queues": {
        "default": {"model": "m"},
        "priced": {"model": "priced"},
        "template": {"model": "m", "prompt": "Translate into {language}: {query}"},
    },
}
"""Settings of an ingress whose queues answer completion-messages."""


def completion(text: str = "Hi there.", **members: Any) -> bytes:
    """Build the answer of a model server."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}], **members}).encode()


def written(memory: Memory) -> Task:
    """Return the task that was written last."""
    return TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Check the form of an error; return its status, its code and the wrong member."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body["status"] == response.status_code
    assert set(body) <= {"code", "message", "status", "params"}
    assert body["message"]
    return body["status"], body["code"], body.get("params")
