"""What the wire tests of the OpenAI mirror share."""

from __future__ import annotations

import re
from typing import Any

import httpx

from schemas import ids, topics
from schemas.codec import TASK
from schemas.records import Task
from tests.support.memory_ingress import Memory

CHAT = "/v1/chat/completions"
BODY = b'{"model": "m","messages":[{"role":"user","content":"\xc3\xa9 \\u00e9"}], "temperature": 0.10}'
ID = re.compile(r"TASK-\d+-[01]-[BSC]-\d{12}-000\d-007\d{3}")
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations")


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check that an answer has the error form of the API, and return the error."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    found: dict[str, Any] = body["error"]
    return found


def named(response: httpx.Response) -> str:
    """Check that an answer names its task in both forms, and return the TASK- form."""
    text = response.headers["x-task-id"]
    assert ID.fullmatch(text)
    assert response.headers["location"] == f"/v1/tasks/{ids.parse(text).task()}"
    return text


def written(memory: Memory, level: int = 0) -> Task:
    """Return the only task that was written."""
    [record] = memory.written(topics.tasks(level))
    return TASK.decode(record.value or b"")
