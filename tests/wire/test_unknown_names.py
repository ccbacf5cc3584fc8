"""Members and headers that nobody knows are refused at the doors, and the one that was meant is named."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import topics
from tests.support.bella import BODY, PUT, Double

CHAT = "/v1/chat/completions"
DATA: dict[str, Any] = {"model": "m", "messages": []}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("callbackUrl", "callback_url"),
        ("callback", "callback_url"),
        ("time_out", "timeout"),
        ("responseMode", "response_mode"),
        ("model", None),
    ],
)
async def test_members_of_put(ingress: Double, given: str, meant: str | None) -> None:
    """A slip in callback_url must not lose a callback."""
    memory, client = ingress
    answer = await client.post(PUT, json=BODY | {given: "http://127.0.0.1:9/x"})
    assert (answer.status_code, answer.json()["field"]) == (400, given)
    assert answer.json()["message"].startswith(f"{given} is no member of put; ")
    assert meant is None or answer.json()["message"].endswith(f"; did you mean {meant}?")
    assert memory.written(topics.tasks(0)) == []


@pytest.mark.parametrize(
    ("method", "path", "json"),
    [
        ("POST", PUT, BODY),
        ("POST", CHAT, DATA),
        ("POST", "/queue/embeddings", DATA),
        ("POST", "/completion-messages", {"inputs": {"query": "x"}}),
        ("POST", "/v1/batches", {}),
        ("POST", "/v1/files", None),
        ("POST", "/v1/audio/transcriptions", None),
        ("POST", "/v1/queue/take", {"queues": ["chat:0"]}),
        ("GET", "/v1/tasks", None),
        ("GET", "/v1/admin/queues", None),
    ],
)
async def test_headers_of_every_door(ingress: Double, method: str, path: str, json: Any) -> None:
    memory, client = ingress
    answer = await client.request(method, path, json=json, headers={"x-headrace-timout": "60"})
    assert answer.status_code == 400
    assert "X-Headrace-Timout is no header of Headrace; did you mean X-Headrace-Timeout?" in answer.text
    assert memory.written(topics.tasks(0)) == []


async def test_the_key_is_judged_before_the_headers(ingress: Double) -> None:
    headers = {"x-headrace-timout": "60", "authorization": "Bearer no"}
    assert (await ingress[1].post(CHAT, json=DATA, headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("header", "member"), [("X-Headrace-Queue", "queue"), ("X-Headrace-Timeout", "timeout"), ("X-Headrace-Wait", None)]
)
async def test_put_has_members_and_takes_no_header_in_their_place(
    ingress: Double, header: str, member: str | None
) -> None:
    memory, client = ingress
    answer = await client.post(PUT, json=BODY, headers={header: "60"})
    assert (answer.status_code, answer.json()["field"]) == (400, header)
    assert member is None or answer.json()["message"].endswith(f"use the member {member}")
    assert memory.written(topics.tasks(0)) == []
