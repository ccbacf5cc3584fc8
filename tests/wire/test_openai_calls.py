"""Held and async calls of the OpenAI mirror, byte for byte."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from core.settings import IngressSettings, ModelSettings, QueueSettings, Settings
from schemas import ids, topics
from schemas.codec import EVENT, TASK
from schemas.records import Blob, Chunk, Result, Status, Task
from tests.support.answers import result_of
from tests.support.bella import Double, answer, row_of
from tests.support.ingress import HEADERS, ingress_in_memory
from tests.support.openai import BODY, CHAT, ENDPOINTS, error, named, written
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


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b'{"model":"m","async":true,"x":1}', b'{"model":"m","x":1}'),
        (b'{"model":"m","n":123456789012345678901234567890,"async":true}',
         b'{"model":"m","n":123456789012345678901234567890}'),
    ],
)  # fmt: skip
async def test_async_is_taken_off_and_answered_at_once(ingress: Double, sent: bytes, kept: bytes) -> None:
    memory, client = ingress
    response = await client.post("/queue/chat/completions", content=sent)
    assert (response.status_code, response.headers["retry-after"]) == (202, "3")
    task = written(memory)
    task_id = ids.parse(named(response))
    assert (task["data"], task["mode"], task["timeout_ms"]) == (kept, "callback", 86_400_000)
    body = response.json()
    created = body.pop("created_at")
    assert body == {
        "id": task_id.task(),
        "status": "queued",
        "progress": 0,
        "request_id": f"req_{task_id.packed():032x}",
    }
    assert len(created) == len("2026-01-31T12:00:00Z")
    assert created.endswith("Z")


async def test_async_false_is_held(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer()
    assert (await client.post(CHAT, json={"model": "m", "async": False})).status_code == 200
    assert written(memory)["data"] == b'{"model":"m"}'


async def test_settings_of_model_and_queue_are_the_defaults(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        models={"slow": ModelSettings(sync=False)},
        queues={"night": QueueSettings(level=1, timeout_s=77)},
    )
    async with ingress_in_memory(settings) as (memory, client):
        memory.answer = answer()
        night = {"X-Headrace-Queue": "night"}
        assert (await client.post(CHAT, json={"model": "slow"}, headers=night)).status_code == 202
        assert (written(memory, level=1)["level"], written(memory, level=1)["timeout_ms"]) == (1, 77_000)
        held = await client.post(CHAT, json={"model": "slow", "async": False}, headers=night)
        assert (held.status_code, written(memory)["timeout_ms"]) == (200, 77_000)
        streamed = await client.post(CHAT, json={"model": "slow", "stream": True})
        assert streamed.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        ({"status_code": 404, "error_code": "upstream_error", "body": b'{"error":"as it came"}'}, 404, None),
        ({"status_code": 500, "error_code": "upstream_error", "body": b"<html>", "content_type": "text/html"}, 500,
         None),
        ({"status_code": 408, "error_code": "upstream_error", "body": b"{}"}, 408, None),
        ({"status_code": 408, "error_code": "timeout"}, 504, "timeout"),
        ({"status_code": 408, "error_code": "start_timeout"}, 504, "start_timeout"),
        ({"status_code": 503, "error_code": "upstream_unreachable"}, 503, "upstream_unreachable"),
        ({"status_code": 502, "error_code": "worker_lost"}, 502, "worker_lost"),
        ({"status_code": 499, "error_code": "cancelled", "state": "cancelled"}, 499, "cancelled"),
        ({"status_code": 502, "error_code": "upstream_cut", "body": b"data: {}\n\n",
          "content_type": "text/event-stream"}, 502, "upstream_cut"),
    ],
)  # fmt: skip
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
    settings = Settings(data_dir=tmp_path, ingress=IngressSettings(hold_s=0.05))
    async with ingress_in_memory(settings) as (memory, client):
        response = await client.post(CHAT, content=BODY)
        found = error(response, 504)
        task_id = named(response)
        assert (response.headers["x-should-retry"], found["code"]) == ("false", "wait_exceeded")
        assert task_id in found["message"]
        assert response.headers["location"] in found["message"]
        assert memory.written(topics.events(0)) == []


async def test_a_task_that_is_overdue_is_cancelled(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.blocking.GRACE_S", 0.01)
    response = await ingress[1].post(CHAT, content=BODY, headers={"X-Headrace-Timeout": "1"})
    assert error(response, 504)["code"] == "timeout"
    assert response.headers["x-should-retry"] == "false"
    [record] = ingress[0].written(topics.events(0))
    assert EVENT.decode(record.value or b"")["kind"] == "cancel"


async def test_at_shutdown_those_who_wait_are_told(ingress: Double) -> None:
    memory, client = ingress

    def tell(_: Task) -> list[Chunk | Result]:
        memory.services.waiters.shut_down()
        return []

    memory.answer = tell
    response = await client.post(CHAT, content=BODY)
    assert error(response, 503)["code"] == "server_shutdown"
    assert response.headers["x-should-retry"] == "false"
    named(response)


async def test_an_answer_from_the_object_store(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = ingress
    blob = await memory.services.blobs.put(b'{"big":1}', name="results/x", media_type="application/json")
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

    monkeypatch.setattr(memory.services.blobs, "open", away)
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


async def test_a_twin_is_answered_with_the_task_of_the_first(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = ingress
    keyed = {"Idempotency-Key": "k"}

    async def wait(key: bytes, *, seconds: float) -> Status | None:
        await eventually_async(lambda: key in memory.rows)
        return memory.rows[key]

    monkeypatch.setattr(memory, "wait", wait)
    memory.answer = _first_row(memory)
    first = await client.post(CHAT, json={"model": "m", "async": True}, headers=keyed)
    memory.answer = _twin_row(memory, first.headers["x-task-id"])
    again = await client.post(CHAT, json={"model": "m", "async": True}, headers=keyed)
    assert named(again) == named(first)
    assert again.json()["id"] == first.json()["id"]
    assert (again.json()["status"], again.json()["progress"]) == ("processing", 40)
    assert again.json()["request_id"] != first.json()["request_id"]


@pytest.mark.parametrize(
    ("first", "twin", "status", "code"),
    [
        ("completed", {"error_code": "idempotency_conflict", "error_message": "another body"}, 422,
         "idempotency_conflict"),
        ("expired", {}, 410, "gone"),
    ],
)  # fmt: skip
async def test_a_twin_that_cannot_be_answered_names_the_first(
    ingress: Double, monkeypatch: pytest.MonkeyPatch, first: Any, twin: dict[str, Any], status: int, code: str
) -> None:
    memory, client = ingress
    accepted = (await client.post(CHAT, json={"model": "m", "async": True})).headers["x-task-id"]
    memory.rows[accepted.encode()] = row_of(written(memory), 0, state=first)

    async def wait(key: bytes, *, seconds: float) -> Status | None:
        task = TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")
        return row_of(task, 1, state="expired", duplicate_of=accepted, **twin)

    monkeypatch.setattr(memory, "wait", wait)
    response = await client.post(CHAT, content=BODY, headers={"Idempotency-Key": "k"})
    assert error(response, status)["code"] == code
    assert named(response) == accepted


def _first_row(memory: Any) -> Any:
    def judge(task: Task) -> list[Chunk | Result]:
        memory.rows[(task["id"] or "").encode()] = row_of(task, 0, state="processing", progress=40)
        return []

    return judge


def _twin_row(memory: Any, first: str) -> Any:
    def judge(task: Task) -> list[Chunk | Result]:
        memory.rows[(task["id"] or "").encode()] = row_of(task, 1, state="expired", duplicate_of=first)
        return []

    return judge


@pytest.mark.parametrize("body", [BODY, b'{"model":"m","stream":true}'])
async def test_a_client_that_leaves_cancels(ingress: Double, body: bytes) -> None:
    memory, _ = ingress
    told = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
    scope = {"type": "http", "method": "POST", "path": CHAT, "query_string": b"", "http_version": "1.1",
             "headers": [(b"authorization", HEADERS["authorization"].encode())]}  # fmt: skip

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
            assert len(memory.services.waiters) == 1
        finally:
            tracemalloc.stop()
        memory.tell([result_of(written(memory)["id"] or "")])
        assert (await asking).status_code == 200
