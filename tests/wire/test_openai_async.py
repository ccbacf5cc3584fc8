"""Async calls of the OpenAI mirror, the defaults of models and queues, and twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.settings.models import ModelSettings, QueueSettings, Settings
from schemas import ids, topics
from schemas.codec import TASK
from schemas.records import Chunk, Result, Status, Task
from tests.support.bella import Double, answer, row_of
from tests.support.memory_ingress import ingress_in_memory
from tests.support.openai import BODY, CHAT, error, named, written
from tests.support.waiting import eventually_async


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b'{"model":"m","async":true,"x":1}', b'{"model":"m","x":1}'),
        (
            b'{"model":"m","n":123456789012345678901234567890,"async":true}',
            b'{"model":"m","n":123456789012345678901234567890}',
        ),
        (b'{"model":"m","n":-1.50e400,"async":true}', b'{"model":"m","n":-1.50e400}'),
    ],
)
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
    shown = (await client.get(f"/v1/tasks/{again.json()['id']}")).json()
    assert again.json()["request_id"] == first.json()["request_id"] == shown["request_id"]


@pytest.mark.parametrize(
    ("first", "twin", "status", "code"),
    [
        (
            "completed",
            {"error_code": "idempotency_conflict", "error_message": "another body"},
            422,
            "idempotency_conflict",
        ),
        ("expired", {}, 410, "gone"),
    ],
)
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
