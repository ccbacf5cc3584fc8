"""Streamed calls of the OpenAI mirror, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import IngressSettings, Settings
from ingress.api.openai.models import JSON_CALLS
from schemas import topics
from schemas.records import Chunk, Result, Task
from tests.support.bella import Double, answer, chunk
from tests.support.clocks import SteppingClock
from tests.support.memory_ingress import ingress_in_memory
from tests.support.openai import CHAT, error, named, written
from tests.support.results import result_of

BODY = b'{"model":"m", "stream" : true}'
EVENTS = "text/event-stream"


def telling(*frames: bytes, events: Sequence[str] = (), **result: Any) -> Any:
    """Answer with one chunk of frames, with the names of their events, and an outcome."""

    def tell(task: Task) -> list[Chunk | Result]:
        ended = {"mode": "streaming", "chunks": 1, "content_type": EVENTS, "body": b""} | result
        return [chunk(task, 0, *frames, events=list(events)), result_of(task["id"] or "", **ended)]

    return tell


@pytest.mark.parametrize("path", ["/queue/chat/completions", "/v1/chat/completions", "/queue/completions"])
async def test_the_frames_are_the_upstreams(ingress: Double, path: str) -> None:
    memory, client = ingress
    memory.answer = telling(b'{"n": 1}', b'{"n":2,"x":"\xc3\xa9"}')
    response = await client.post(path, content=BODY)
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, EVENTS)
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert response.content == b'data: {"n": 1}\n\ndata: {"n":2,"x":"\xc3\xa9"}\n\ndata: [DONE]\n\n'
    task = written(memory)
    assert named(response) == task["id"]
    assert (task["data"], task["mode"], task["timeout_ms"]) == (BODY, "streaming", 3_600_000)


async def test_events_of_an_image_stream_have_their_names(ingress: Double) -> None:
    memory, client = ingress
    partial = b'{"type":"image_generation.partial_image","b64_json":"aGk="}'
    done = b'{"b64_json": "aGk=", "type": "image_generation.completed"}'
    names = ["image_generation.partial_image", "image_generation.completed", ""]
    memory.answer = telling(partial, done, b'{"other":1}', events=names)
    response = await client.post("/v1/images/generations", content=BODY)
    assert response.content == (
        b"event: image_generation.partial_image\ndata: " + partial + b"\n\n"
        b"event: image_generation.completed\ndata: " + done + b"\n\n"
        b'data: {"other":1}\n\ndata: [DONE]\n\n'
    )


async def test_silence_is_filled_with_comments_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.streaming.time", SteppingClock(20))  # three silences to the minute
    settings = Settings(data_dir=tmp_path, ingress=IngressSettings(keep_alive_s=0.02))
    async with ingress_in_memory(settings) as (memory, client):
        memory.answer = lambda task: [chunk(task, 0, b"{}")]
        response = await client.post(CHAT, content=BODY, headers={"X-Headrace-Wait": "60"})
        first, rest, end = response.content.split(b"\n\n")
        *comments, last = rest.split(b"\n")
        assert (first, set(comments), end) == (b"data: {}", {b": keep-alive"}, b"")
        found = json.loads(last.removeprefix(b"data: "))["error"]
        assert (found["code"], found["type"], found["param"]) == ("wait_exceeded", "server_error", None)
        assert named(response) in found["message"]
        assert memory.written(topics.events(0)) == []  # the task goes on


async def test_a_stream_that_moves_is_not_cut_at_the_longest_hold(tmp_path: Path) -> None:
    async with ingress_in_memory(Settings(data_dir=tmp_path, ingress=IngressSettings(blocking_timeout_s=0.02))) as (
        memory,
        client,
    ):

        def tell(task: Task) -> list[Chunk | Result]:
            first, ended = telling(b"{}")(task)
            asyncio.get_running_loop().call_later(0.3, memory.tell, [ended])
            return [first]

        memory.answer = tell
        assert (await client.post(CHAT, content=BODY)).content == b"data: {}\n\ndata: [DONE]\n\n"


async def test_a_wait_that_is_over_before_the_first_frame_is_a_504(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingress.waiting.streaming.time", SteppingClock(60))
    async with ingress_in_memory(Settings(data_dir=tmp_path)) as (memory, client):
        response = await client.post(CHAT, content=BODY, headers={"X-Headrace-Wait": "60"})
        assert error(response, 504)["code"] == "wait_exceeded"
        assert response.headers["x-should-retry"] == "false"
        named(response)
        assert memory.written(topics.events(0)) == []


async def test_a_refusal_before_the_first_frame_keeps_status_and_body(ingress: Double) -> None:
    body = b'{"error": {"message":"no", "type":"t","param":"messages","code":null}}'
    ingress[0].answer = answer(
        state="failed", mode="streaming", status_code=400, error_code="upstream_error", body=body
    )
    response = await ingress[1].post(CHAT, content=BODY)
    assert (response.status_code, response.content) == (400, body)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-should-retry"] == "false"
    named(response)


@pytest.mark.parametrize(("code", "status"), [("timeout", 504), ("upstream_unreachable", 503)])
async def test_a_failure_before_the_first_frame_is_an_error_answer(ingress: Double, code: str, status: int) -> None:
    failed = {"status_code": 408 if code == "timeout" else status, "error_code": code, "error_message": "so"}
    ingress[0].answer = answer(state="failed", mode="streaming", body=None, **failed)
    response = await ingress[1].post(CHAT, content=BODY)
    assert error(response, status)["code"] == code
    named(response)


async def test_a_failure_after_it_is_an_error_frame_and_no_end_mark(ingress: Double) -> None:
    ended = {"state": "failed", "status_code": 502, "error_code": "upstream_cut", "error_message": "cut", "body": None}
    ingress[0].answer = telling(b'{"n":1}', **ended)
    response = await ingress[1].post(CHAT, content=BODY)
    expected = b'{"error":{"message":"cut","type":"server_error","param":null,"code":"upstream_cut"}}'
    assert response.content == b'data: {"n":1}\n\ndata: ' + expected + b"\n\n"


async def test_an_error_frame_of_the_upstream_is_not_told_twice(ingress: Double) -> None:
    told = b'{"error":{"message":"over","code":"x"}}'
    ended = {"state": "failed", "status_code": 502, "error_code": "upstream_error", "error_message": "over"}
    ingress[0].answer = telling(b'{"n":1}', told, **ended)
    response = await ingress[1].post(CHAT, content=BODY)
    assert response.content == b'data: {"n":1}\n\ndata: ' + told + b"\n\n"


def test_a_stream_is_described_where_there_is_one() -> None:
    assert {call.path for call in JSON_CALLS if call.stream} == {
        "/chat/completions",
        "/completions",
        "/images/generations",
    }
