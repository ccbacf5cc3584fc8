"""Answers that are kept in the object store, on their way to a held client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from schemas.records import Chunk, Result, Task
from tests.support.bella import Double, answer
from tests.support.memory_ingress import Memory
from tests.support.openai import CHAT, written
from tests.support.results import result_of

LARGE_ANSWER = b'{"data":[{"b64_json":"' + b"A" * 900_000 + b'"}]}'


async def large(memory: Memory, data: bytes = LARGE_ANSWER, **changes: Any) -> None:
    """Let tasks be answered with a stored body."""
    blob = await memory.ingress.blobs.put(data, name="results/one", media_type="application/json")
    memory.answer = answer(body=None, body_ref={**blob, **changes})


@pytest.mark.parametrize("door", ["openai", "bella"])
async def test_a_large_answer_comes_out_of_the_store(ingress: Double, door: str) -> None:
    memory, client = ingress
    await large(memory)
    response = await ask(client, door)
    assert (response.status_code, response.content) == (200, LARGE_ANSWER)
    assert response.headers["content-length"] == str(len(LARGE_ANSWER))
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-task-id"] == written(memory)["id"]


async def ask(client: httpx.AsyncClient, door: str) -> httpx.Response:
    data = {"model": "m", "messages": []}
    if door == "openai":
        return await client.post(CHAT, json=data)
    put = {"queue": "q", "endpoint": CHAT, "response_mode": "blocking", "data": data}
    return await client.post("/v1/queue/put", json=put)


@pytest.mark.parametrize("door", ["openai", "bella"])
async def test_a_large_answer_that_is_lost_is_an_error(ingress: Double, door: str) -> None:
    memory, client = ingress
    await large(memory)
    await memory.ingress.blobs.remove("results/one")
    assert (await ask(client, door)).status_code == 500
    await large(memory, size=7)
    assert (await ask(client, door)).status_code == 500


async def test_a_large_answer_of_other_bytes_is_cut_off(ingress: Double, caplog: pytest.LogCaptureFixture) -> None:
    memory, _ = ingress
    await large(memory, sha256="0" * 64)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not sent_request:
            sent_request.append(1)
            return {"type": "http.request", "body": b'{"model":"m","messages":[]}', "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    sent_request: list[int] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer hr-local"), (b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("x", 80),
        "client": ("y", 1),
        "root_path": "",
    }
    with caplog.at_level(logging.ERROR):
        await memory.app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert len(body) < len(LARGE_ANSWER)
    assert all(message["more_body"] for message in sent[1:]), "the answer has no end, so the server cuts it off"
    assert [record.__dict__.get("event") for record in caplog.records] == ["response_truncated"]


async def test_an_upstreams_large_error_keeps_its_status(ingress: Double) -> None:
    memory, client = ingress
    await large(memory)
    ref = await memory.ingress.blobs.put(LARGE_ANSWER, name="results/two", media_type="application/json")
    memory.answer = lambda task: made(task, ref)
    response = await client.post(CHAT, json={"model": "m", "messages": []})
    assert (response.status_code, response.content) == (422, LARGE_ANSWER)
    assert response.headers["x-should-retry"] == "false"


def made(task: Task, ref: Any) -> list[Chunk | Result]:
    changes = {"state": "failed", "status_code": 422, "error_code": "upstream_error", "body": None, "body_ref": ref}
    return [result_of(task["id"] or "", **changes)]
