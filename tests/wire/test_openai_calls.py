"""Held calls of the OpenAI mirror, byte for byte: what they become, and which are refused."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from schemas import topics
from schemas.codec import EVENT
from tests.support.bella import Double, answer
from tests.support.memory_ingress import HEADERS, ingress_in_memory
from tests.support.openai import BODY, CHAT, ENDPOINTS, error, named, written
from tests.support.results import result_of
from tests.support.waiting import eventually_async


@pytest.mark.parametrize("prefix", ["/queue", "/v1"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_call_is_held_and_answered_as_the_upstream_did(ingress: Double, prefix: str, endpoint: str) -> None:
    memory, client = ingress
    memory.answer = answer(status_code=201, body=b'{ "x":1.0}', content_type="text/x-own; a=b")
    response = await client.post(prefix + endpoint.removeprefix("/v1"), content=BODY)
    assert (response.status_code, response.content) == (201, b'{ "x":1.0}')
    assert response.headers["content-type"] == "text/x-own; a=b"
    assert "x-should-retry" not in response.headers
    task = written(memory)
    assert named(response) == task["id"]
    assert task["data"] == BODY
    assert (task["endpoint"], task["mode"], task["model"], task["queue"]) == (endpoint, "blocking", "m", "default")
    assert (task["level"], task["timeout_ms"], task["content_type"]) == (0, 3_600_000, "application/json")


async def test_the_headers_set_what_the_body_has_no_members_for(ingress: Double) -> None:
    memory, client = ingress
    headers = {
        "X-Headrace-Queue": "other",
        "X-Headrace-Level": "1",
        "X-Headrace-Timeout": "100000",
        "X-Headrace-Start-Timeout": "7",
        "X-Headrace-Run-Timeout": "8",
        "X-Headrace-Result-Retention": "9",
        "X-Headrace-Callback-Url": "http://me.example/done",
    }
    response = await client.post(CHAT, json={"model": "m", "messages": [], "async": True}, headers=headers)
    assert response.status_code == 202
    task = written(memory, level=1)
    assert (task["queue"], task["level"], task["timeout_ms"]) == ("other", 1, 100_000_000)
    assert (task["start_timeout_ms"], task["run_timeout_ms"], task["retention_ms"]) == (7_000, 8_000, 9_000)
    assert task["callback_url"] == "http://me.example/done"


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"X-Headrace-Queue": "no spaces"}, "X-Headrace-Queue"),
        ({"X-Headrace-Queue": ""}, "X-Headrace-Queue"),
        ({"X-Headrace-Level": "2"}, "X-Headrace-Level"),
        ({"X-Headrace-Level": "1"}, "X-Headrace-Level"),
        ({"X-Headrace-Timeout": "0"}, "X-Headrace-Timeout"),
        ({"X-Headrace-Timeout": "1e3"}, "X-Headrace-Timeout"),
        ({"X-Headrace-Timeout": "\u00b2".encode("latin-1")}, "X-Headrace-Timeout"),
        ({"X-Headrace-Timeout": "86401"}, "X-Headrace-Timeout"),
        ({"X-Headrace-Start-Timeout": "-1"}, "X-Headrace-Start-Timeout"),
        ({"X-Headrace-Run-Timeout": "99999999999999"}, "X-Headrace-Run-Timeout"),
        ({"X-Headrace-Result-Retention": "604801"}, "X-Headrace-Result-Retention"),
        ({"X-Headrace-Wait": "591"}, "X-Headrace-Wait"),
        ({"X-Headrace-Callback-Url": "http://me.example/"}, "X-Headrace-Callback-Url"),
        ({"X-Headrace-Callback-Url": "ftp://me.example/"}, "X-Headrace-Callback-Url"),
        ({"Idempotency-Key": "\u00e9".encode("latin-1")}, "Idempotency-Key"),
        ([("X-Headrace-Queue", "a"), ("X-Headrace-Queue", "b")], "X-Headrace-Queue"),
    ],
)
async def test_wrong_headers_are_refused_by_name(ingress: Double, headers: Any, param: str) -> None:
    memory, client = ingress
    found = error(await client.post(CHAT, content=BODY, headers=headers), 400)
    assert (found["type"], found["param"]) == ("invalid_request_error", param)
    assert param in found["message"]
    assert memory.log == {}


@pytest.mark.parametrize("seconds", ["0", "604801", "1209601", "999999999", "9999999999999"])
async def test_a_retention_beyond_its_limit_is_told_the_limit(ingress: Double, seconds: str) -> None:
    refused = await ingress[1].post(CHAT, content=BODY, headers={"X-Headrace-Result-Retention": seconds})
    said = "X-Headrace-Result-Retention must be a whole number of seconds from 1 to 604800"
    assert error(refused, 400)["message"] == said


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages":[]}', "model"),
        (b'{"model":null}', "model"),
        (b'{"model":7}', "model"),
        (b'{"model":" "}', "model"),
        (b'{"model":"' + b"m" * 257 + b'"}', "model"),
        (b'{"model":"m","stream":1}', "stream"),
        (b'{"model":"m","async":"yes"}', "async"),
        (b'{"model":"m","async":true,"stream":true}', "stream"),
        (b"[]", "body"),
        (b"", "body"),
        (b'{"model":"m",}', "body"),
        (b'{"model":"\xff"}', "body"),
        (b'{"model":"m","n":NaN}', "body"),
    ],
)
async def test_wrong_bodies_name_the_member(ingress: Double, body: bytes, param: str) -> None:
    memory, client = ingress
    found = error(await client.post(CHAT, content=body), 400)
    assert (found["type"], found["param"], found["code"]) == ("invalid_request_error", param, "invalid_request")
    assert memory.log == {}


async def test_embeddings_do_not_stream(ingress: Double) -> None:
    found = error(await ingress[1].post("/queue/embeddings", json={"model": "m", "input": "x", "stream": True}), 400)
    assert found["param"] == "stream"
    ingress[0].answer = answer()
    response = await ingress[1].post("/v1/embeddings", json={"model": "m", "input": "x", "stream": False})
    assert response.status_code == 200


@pytest.mark.parametrize("body", [BODY, b'{"model":"m","stream":true}'])
async def test_a_client_that_leaves_cancels(ingress: Double, body: bytes) -> None:
    memory, _ = ingress
    told = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"authorization", HEADERS["authorization"].encode())],
    }

    async def receive() -> Any:
        return told.pop(0)

    async def send(_: Any) -> None:
        """Nobody listens."""

    await memory.app(scope, receive, send)
    [record] = memory.written(topics.events(0))
    asked = EVENT.decode(record.value or b"")
    assert (asked["kind"], asked["id"]) == ("cancel", written(memory)["id"])


async def test_a_held_call_does_not_hold_its_body(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"model":"m","async":false,"prompt":"'
        yield b"x" * 3_000_000
        yield b'"}'

    async with ingress_in_memory(Settings(data_dir=tmp_path)) as (memory, client):
        tracemalloc.start()
        try:
            asking = asyncio.create_task(client.post("/v1/completions", content=body()))
            await eventually_async(lambda: memory.written(topics.tasks(0)), what="the write")
            await eventually_async(lambda: tracemalloc.get_traced_memory()[0] < 1_500_000, what="a small held call")
            assert len(memory.ingress.waiters) == 1
        finally:
            tracemalloc.stop()
        memory.tell([result_of(written(memory)["id"] or "")])
        assert (await asking).status_code == 200
