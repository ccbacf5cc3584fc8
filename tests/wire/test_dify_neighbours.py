"""Stop, feedbacks and what a client asks about the application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas import ids, topics
from schemas.codec import EVENT
from schemas.records import Task
from tests.support.bella import Double, answer, row_of
from tests.support.dify import BODY, DIFY, URL, completion, error_of, written
from tests.support.waiting import eventually_async

STREAMING = BODY | {"response_mode": "streaming"}


SETTINGS = DIFY


@pytest.fixture
async def task(ingress: Double) -> AsyncIterator[Task]:
    """Give the task of an open stream; its row is there."""
    memory, client = ingress
    streaming = asyncio.create_task(client.post(URL, json=STREAMING))
    await eventually_async(lambda: memory.written(topics.tasks(0)), what="the task")
    begun = written(memory)
    memory.rows[(begun["id"] or "").encode()] = row_of(begun, 0, user="abc-123", state="processing")
    yield begun
    streaming.cancel()
    await asyncio.gather(streaming, return_exceptions=True)


def uuid_of(task: Task) -> str:
    return ids.parse(task["id"] or "").uuid()


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_stop_asks_for_the_cancel(ingress: Double, task: Task, prefix: str) -> None:
    memory, client = ingress
    response = await client.post(f"{prefix}{URL}/{uuid_of(task)}/stop", json={"user": "abc-123"})
    assert (response.status_code, response.content) == (200, b'{"result":"success"}')
    [record] = memory.written(topics.events(0))
    asked = EVENT.decode(record.value or b"")
    assert (asked["kind"], asked["id"], asked["owner"]) == ("cancel", task["id"], task["owner"])


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, {"user": "somebody-else"}),
        ({}, {}),
        ({"owner": "key-somebody"}, {"user": "abc-123"}),
        ({"mode": "blocking"}, {"user": "abc-123"}),
        ({"state": "completed"}, {"user": "abc-123"}),
        ({"state": "cancelled"}, {"user": "abc-123"}),
        ({"user": None}, {"user": "abc-123"}),
    ],
)
async def test_stop_leaves_anything_else_alone(ingress: Double, task: Task, change: Any, body: Any) -> None:
    memory, client = ingress
    key = (task["id"] or "").encode()
    memory.rows[key] = {**memory.rows[key], **change}
    for text in (uuid_of(task), "6f1c7a52-8f0e-4d0b-9a64-0c8a3f2f9b11", "nonsense"):
        response = await client.post(f"{URL}/{text}/stop", json=body)
        assert (response.status_code, response.content) == (200, b'{"result":"success"}')
    assert memory.written(topics.events(0)) == []


async def test_a_stop_that_cannot_be_read_is_refused(ingress: Double, task: Task) -> None:
    client = ingress[1]
    assert error_of(await client.post(f"{URL}/{uuid_of(task)}/stop", json={"user": 3})) == (
        400,
        "invalid_param",
        "user",
    )
    assert error_of(await client.post(f"{URL}/{uuid_of(task)}/stop", content=b"no")) == (400, "invalid_param", "body")


@pytest.mark.parametrize(
    "said", [{"rating": "like"}, {"rating": "dislike", "content": "too short"}, {"rating": None}, {}]
)
async def test_feedback_is_kept(ingress: Double, task: Task, tmp_path: Path, said: dict[str, Any]) -> None:
    response = await ingress[1].post(f"/messages/{uuid_of(task)}/feedbacks", json={"user": "abc-123", **said})
    assert (response.status_code, response.content) == (200, b'{"result":"success"}')
    kept = json.loads((tmp_path / f"objects/feedbacks/{task['id']}.json").read_text())
    assert kept.pop("at_ms")
    assert kept == {"task_id": task["id"], "user": "abc-123", "rating": None, "content": None, **said}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"rating": "meh", "user": "abc-123"}, (400, "invalid_param", "rating")),
        ({"rating": ["like"], "user": "abc-123"}, (400, "invalid_param", "rating")),
        ({"rating": "like", "content": 1, "user": "abc-123"}, (400, "invalid_param", "content")),
        ({"rating": "like", "user": "somebody-else"}, (404, "not_found", None)),
    ],
)
async def test_feedback_that_is_refused(
    ingress: Double, task: Task, tmp_path: Path, body: dict[str, Any], error: tuple[int, str, str | None]
) -> None:
    memory, client = ingress
    assert error_of(await client.post(f"/messages/{uuid_of(task)}/feedbacks", json=body)) == error
    key = (task["id"] or "").encode()
    memory.rows[key] = {**memory.rows[key], "owner": "key-somebody"}
    if error[0] == 404:
        fine = {"rating": "like", "user": "abc-123"}
        assert error_of(await client.post(f"/v1/messages/{uuid_of(task)}/feedbacks", json=fine)) == error
    assert not (tmp_path / "objects/feedbacks").exists()


async def test_what_the_application_asks_for(ingress: Double) -> None:
    client = ingress[1]
    plain = (await client.get("/parameters")).json()
    assert [field["paragraph"]["variable"] for field in plain["user_input_form"]] == ["query"]
    assert plain["file_upload"]["image"]["enabled"] is True
    assert plain["system_parameters"] == {
        "file_size_limit": 15,
        "image_file_size_limit": 10,
        "audio_file_size_limit": 50,
        "video_file_size_limit": 100,
        "workflow_file_upload_limit": 10,
    }
    headers = {"x-headrace-queue": "template"}
    form = (await client.get("/v1/parameters?user=abc-123", headers=headers)).json()["user_input_form"]
    assert [field["paragraph"]["variable"] for field in form] == ["language", "query"]
    info = {"name": "template", "description": "", "tags": [], "mode": "completion", "author_name": ""}
    assert (await client.get("/info", headers=headers)).json() == info
    assert (await client.get("/v1/meta")).json() == {"tool_icons": {}}


async def test_the_template_of_a_queue(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(body=completion())
    headers = {"x-headrace-queue": "template"}
    body = {"inputs": {"language": "French", "query": "Hello"}}
    assert (await client.post(URL, json=body, headers=headers)).status_code == 200
    sent = json.loads(written(memory)["data"] or b"")["messages"]
    assert sent == [{"role": "user", "content": "Translate into French: Hello"}]
    refused = await client.post(URL, json={"inputs": {"query": "Hello"}}, headers=headers)
    assert error_of(refused) == (400, "invalid_param", "inputs.language")


async def test_the_clocks_of_a_task(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(body=completion())
    await client.post(URL, json=BODY)
    assert written(memory)["timeout_ms"] == 300_000
    headers = {
        "x-headrace-timeout": "7",
        "x-headrace-run-timeout": "5",
        "x-headrace-start-timeout": "6",
        "x-headrace-result-retention": "60",
        "idempotency-key": "once",
    }
    memory.rows.clear()
    asking = asyncio.create_task(client.post(URL, json=BODY, headers=headers))
    await eventually_async(lambda: len(memory.written(topics.tasks(0))) == 2, what="the task")
    task = written(memory)
    assert (task["timeout_ms"], task["run_timeout_ms"], task["start_timeout_ms"]) == (7_000, 5_000, 6_000)
    assert (task["retention_ms"], task["idempotency_key"]) == (60_000, "once")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    wrong = await client.post(URL, json=BODY, headers={"x-headrace-timeout": "soon"})
    assert error_of(wrong) == (400, "invalid_param", "X-Headrace-Timeout")
