"""A full queue, as every door refuses its tasks: 429 with Retry-After, and nothing is kept."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest

from schemas import topics
from schemas.codec import TASK
from schemas.records import Task
from streams.outputs import status_record
from tests.support.bella import BODY, PUT, Double, envelope, row_of
from tests.support.openai import CHAT, error
from tests.support.results import result_of

LONG = "x" * 5_000
FORM: Any = {"data": {"model": "m"}, "files": [("file", ("a.mp3", b"\xff" * 5_000))]}
MESSAGES = [{"role": "user", "content": LONG}]
SAYS = "queue default is full: 2 online tasks wait, and its limit is 2; nothing was accepted, try again in 60 s"
DATA = {"model": "m", "messages": MESSAGES}


SETTINGS = {
    "ingress": {"default_max_depth": 2, "keep_alive_s": 0.05},
    "auth": {"requests_per_minute": 1_000},
    "storage": {"inline_bytes": 4_096},
    "queues": {"default": {"model": "m"}, "wide": {"max_depth": 0}, "narrow": {"max_depth": 1}},
}


async def put(ingress: Double, queue: str = "default", **members: Any) -> Any:
    return await ingress[1].post(PUT, json={**BODY, "queue": queue, **members})


async def fill(ingress: Double, queue: str = "default", count: int = 2) -> list[Task]:
    for _ in range(count):
        assert (await put(ingress, queue)).status_code == 200
    records = ingress[0].written(topics.tasks(0))
    return [TASK.decode(record.value or b"") for record in records[-count:]]


def show(ingress: Double, task: Task, state: str, **changes: Any) -> None:
    """Let the read model find the row of a task."""
    row = row_of(task, 0, state=state, **changes)
    for watcher in ingress[0].watchers:
        watcher([status_record(row, now_ms=0)])
    ingress[0].row(row)


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (CHAT, {"json": DATA}),
        ("/queue/chat/completions", {"json": DATA | {"stream": True}}),
        (CHAT, {"json": DATA | {"async": True}}),
        ("/v1/audio/transcriptions", FORM),
    ],
)
async def test_openai(ingress: Double, path: str, request_: dict[str, Any]) -> None:
    await fill(ingress)
    refused = await ingress[1].post(path, **request_)
    assert error(refused, 429) == {
        "message": SAYS,
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    nothing_kept(ingress, refused)


@pytest.mark.parametrize("mode", ["blocking", "streaming", "callback"])
async def test_bella(ingress: Double, mode: str) -> None:
    await fill(ingress)
    refused = await put(ingress, response_mode=mode, data=DATA)
    assert envelope(refused) == {"code": 429, "message": SAYS}
    nothing_kept(ingress, refused)


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
async def test_dify(ingress: Double, mode: str) -> None:
    await fill(ingress)
    body = {"inputs": {"query": LONG}, "response_mode": mode, "user": "u"}
    refused = await ingress[1].post("/completion-messages", json=body)
    assert refused.json() == {"code": "too_many_requests", "message": SAYS, "status": 429}
    nothing_kept(ingress, refused)


def nothing_kept(ingress: Double, refused: Any) -> None:
    memory, _ = ingress
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert "x-ratelimit-remaining-requests" not in refused.headers, "it was not counted against the key"
    assert len(memory.written(topics.tasks(0))) == 2
    assert not [path for path in (memory.settings.data_dir / "objects").rglob("*") if path.is_file()]
    counted = b'headrace_ingress_queue_full_total{level="online"} 1.0'
    assert counted in generate_latest(memory.ingress.metrics.registry)


async def test_each_queue_and_level_has_its_own_room(ingress: Double) -> None:
    await fill(ingress, "narrow", 1)
    assert envelope(await put(ingress, "narrow"))["message"].startswith("queue narrow is full: 1 online tasks wait")
    assert (await put(ingress, "narrow", level=1)).status_code == 200
    assert "1 offline tasks wait" in envelope(await put(ingress, "narrow", level=1))["message"]
    await fill(ingress, "wide", 9)
    await fill(ingress, "another", 2)
    assert (await put(ingress, "another")).status_code == 429


async def test_there_is_room_again_once_one_begins(ingress: Double) -> None:
    first, second = await fill(ingress)
    show(ingress, first, "queued")
    show(ingress, second, "queued")
    assert (await put(ingress)).status_code == 429
    show(ingress, first, "processing")
    assert (await put(ingress)).status_code == 200
    refused = await put(ingress)
    assert (refused.status_code, int(refused.headers["retry-after"]) < 60) == (429, True), "there is a pace to go by"
    show(ingress, second, "completed")
    assert (await put(ingress)).status_code == 200


async def test_a_held_call_that_is_answered_leaves_its_place(ingress: Double) -> None:
    memory, client = ingress

    def answer(task: Task) -> list[Any]:
        show(ingress, task, "completed")
        return [result_of(task["id"] or "")]

    memory.answer = answer
    for _ in range(5):
        assert (await client.post(CHAT, json=DATA)).status_code == 200


async def test_what_could_not_be_written_takes_no_place(ingress: Double) -> None:
    memory, _ = ingress
    memory.broken = True
    for _ in range(3):
        assert (await put(ingress)).status_code == 503
    memory.broken = False
    await fill(ingress)
    assert (await put(ingress)).status_code == 429
