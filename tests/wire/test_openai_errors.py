"""Calls of the OpenAI mirror that come to no good answer: how they are told, and that none is sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from core.settings.models import IngressSettings, Settings
from schemas import topics
from schemas.codec import EVENT
from schemas.common import Blob
from tests.support.bella import Double, answer, shutting_down
from tests.support.memory_ingress import ingress_in_memory
from tests.support.openai import BODY, CHAT, error, named


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        ({"status_code": 404, "error_code": "upstream_error", "body": b'{"error":"as it came"}'}, 404, None),
        (
            {"status_code": 500, "error_code": "upstream_error", "body": b"<html>", "content_type": "text/html"},
            500,
            None,
        ),
        ({"status_code": 408, "error_code": "upstream_error", "body": b"{}"}, 408, None),
        ({"status_code": 408, "error_code": "timeout"}, 504, "timeout"),
        ({"status_code": 408, "error_code": "start_timeout"}, 504, "start_timeout"),
        ({"status_code": 503, "error_code": "upstream_unreachable"}, 503, "upstream_unreachable"),
        ({"status_code": 502, "error_code": "worker_lost"}, 502, "worker_lost"),
        ({"status_code": 499, "error_code": "cancelled", "state": "cancelled"}, 499, "cancelled"),
        (
            {
                "status_code": 502,
                "error_code": "upstream_cut",
                "body": b"data: {}\n\n",
                "content_type": "text/event-stream",
            },
            502,
            "upstream_cut",
        ),
    ],
)
async def test_a_failed_task_keeps_its_answer_and_is_not_sent_again(
    ingress: Double, result: dict[str, Any], status: int, said: str | None
) -> None:
    ingress[0].answer = answer(**{"state": "failed", "error_message": "so it went", "body": None} | result)
    response = await ingress[1].post(CHAT, content=BODY)
    assert response.headers["x-should-retry"] == "false"
    named(response)
    if said is None:
        assert (response.status_code, response.content) == (status, result["body"])
        assert response.headers["content-type"] == result.get("content_type", "application/json")
    else:
        found = error(response, status)
        assert (found["message"], found["code"]) == ("so it went", said)
        assert found["type"] == ("server_error" if status >= 500 else "invalid_request_error")


async def test_a_wait_that_is_over_leaves_the_task_running(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, ingress=IngressSettings(blocking_timeout_s=0.05))
    async with ingress_in_memory(settings) as (memory, client):
        response = await client.post(CHAT, content=BODY)
        found = error(response, 504)
        task_id = named(response)
        assert (response.headers["x-should-retry"], found["code"]) == ("false", "wait_exceeded")
        assert task_id in found["message"]
        assert response.headers["location"] in found["message"]
        assert memory.written(topics.events(0)) == []


async def test_a_task_that_is_overdue_is_cancelled(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.blocking.GRACE_S", 0.01)
    response = await ingress[1].post(CHAT, content=BODY, headers={"X-Headrace-Timeout": "1"})
    assert error(response, 504)["code"] == "timeout"
    assert response.headers["x-should-retry"] == "false"
    [record] = ingress[0].written(topics.events(0))
    assert EVENT.decode(record.value or b"")["kind"] == "cancel"


async def test_at_shutdown_those_who_wait_are_told(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = shutting_down(memory)
    response = await client.post(CHAT, content=BODY)
    assert error(response, 503)["code"] == "server_shutdown"
    assert response.headers["x-should-retry"] == "false"
    named(response)


async def test_an_answer_from_the_object_store(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = ingress
    blob = await memory.ingress.blobs.put(b'{"big":1}', name="results/x", media_type="application/json")
    memory.answer = answer(body=None, body_ref=blob)
    response = await client.post(CHAT, content=BODY)
    assert (response.status_code, response.content) == (200, b'{"big":1}')
    assert "x-should-retry" not in response.headers
    memory.answer = answer(body=None, body_ref=blob, state="failed", status_code=500)
    response = await client.post(CHAT, content=BODY)
    assert (response.status_code, response.content) == (500, b'{"big":1}')
    assert response.headers["x-should-retry"] == "false"
    memory.answer = answer(body=None, body_ref={**blob, "uri": "results/gone"})
    response = await client.post(CHAT, content=BODY)
    assert error(response, 500)["code"] == "body_missing"
    assert response.headers["x-should-retry"] == "false"

    async def away(_: Blob) -> None:
        raise Unavailable("the object store does not answer")

    monkeypatch.setattr(memory.ingress.blobs, "open", away)
    memory.answer = answer(body=None, body_ref=blob)
    response = await client.post(CHAT, content=BODY)
    assert error(response, 503)["code"] == "unavailable"
    assert response.headers["x-should-retry"] == "false"
    named(response)


async def test_without_kafka_the_sdk_may_try_again(ingress: Double) -> None:
    memory, client = ingress
    memory.broken = True
    for body in ({}, {"stream": True}, {"async": True}):
        response = await client.post(CHAT, json={"model": "m", **body})
        assert error(response, 503)["code"] == "unavailable"
        assert response.headers["retry-after"] == "2"
        assert "x-should-retry" not in response.headers
        assert "x-task-id" not in response.headers


async def test_the_key_comes_first(ingress: Double) -> None:
    for path in ("/queue/chat/completions", "/v1/embeddings"):
        response = await ingress[1].post(path, content=b"{", headers={"authorization": "Bearer no"})
        assert error(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


async def test_errors_of_the_framework_have_the_form_of_the_door(ingress: Double) -> None:
    _, client = ingress
    assert error(await client.post("/queue/nope", content=BODY), 404)["code"] == "not_found"
    response = await client.get("/queue/chat/completions")
    assert error(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    assert error(await client.post(CHAT, content=b"x" * 20_001), 413)["param"] == "body"
    assert error(await client.post(CHAT, content=BODY, headers={"content-encoding": "gzip"}), 400)["param"] == "body"
