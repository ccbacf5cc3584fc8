"""Answers of put in the streaming mode, byte for byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from schemas import topics
from schemas.codec import EVENT, TASK
from schemas.records import Chunk, Result, Task
from tests.support.bella import BODY, ID, PUT, Double, answer, chunk
from tests.support.clocks import SteppingClock
from tests.support.results import result_of
from tests.support.waiting import eventually_async


async def test_streaming(ingress: Double) -> None:
    memory, client = ingress

    def tell(task: Task) -> list[Chunk | Result]:
        frames = [b'{"n":1}', b'{"n": 2}', b'{"n":3, "reasoning_content":"\xc3\xa9"}']
        result = result_of(task["id"] or "", mode="streaming", chunks=2, content_type="text/event-stream", body=b"")
        return [chunk(task, 0, frames[0]), chunk(task, 1, *frames[1:]), result]

    memory.answer = tell
    response = await client.post(PUT, json=BODY | {"response_mode": "streaming"})
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert ID.fullmatch(response.headers["x-task-id"])
    assert "content-length" not in response.headers
    assert response.content == (
        b'data: {"n":1}\n\ndata: {"n": 2}\n\ndata: {"n":3, "reasoning_content":"\xc3\xa9"}\n\ndata: [DONE]\n\n'
    )
    assert json.loads(TASK.decode(memory.written(topics.tasks(0))[0].value or b"")["data"] or b"")["stream"] is True


@pytest.mark.parametrize(
    ("result", "frame"),
    [
        (
            {"status_code": 502, "error_code": "upstream_unreachable", "error_message": "nobody there", "body": None},
            {"message": "nobody there", "type": "server_error", "param": None, "code": "upstream_unreachable"},
        ),
        (
            {
                "status_code": 400,
                "error_code": "upstream_status",
                "error_message": "m",
                "body": b'{"error":{"message":"bad model","type":"invalid_request_error","param":"model","code":"e1"}}',
            },
            {"message": "bad model", "type": "invalid_request_error", "param": "model", "code": "e1"},
        ),
        (
            {"status_code": 400, "error_code": "upstream_status", "error_message": None, "body": b"<html>"},
            {
                "message": "the upstream answered with status 400",
                "type": "invalid_request_error",
                "param": None,
                "code": "upstream_status",
            },
        ),
    ],
)
async def test_streaming_that_fails(ingress: Double, result: dict[str, Any], frame: dict[str, Any]) -> None:
    memory, client = ingress
    memory.answer = answer(state="failed", mode="streaming", **result)
    response = await client.post(PUT, json=BODY | {"response_mode": "streaming"})
    assert response.status_code == 200
    expected = json.dumps({"error": frame}, separators=(",", ":")).encode()
    assert response.content == b"data: " + expected + b"\n\n"


async def test_streaming_that_times_out(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.streaming.time", SteppingClock(20))  # three silences to the minute
    memory, client = ingress
    memory.answer = lambda task: [chunk(task, 0, b"{}")]
    response = await client.post(PUT, json=BODY | {"response_mode": "streaming", "timeout": 60})
    parts = response.content.split(b"\n\n")
    assert parts[0] == b"data: {}"
    assert len(parts) == 3, "an empty line after a comment is an event to some parsers"
    *comments, last = parts[1].split(b"\n")
    assert set(comments) == {b": keep-alive"}
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "timeout"
    assert len(memory.written(topics.events(0))) == 1


async def test_an_interrupted_stream_is_cancelled(ingress: Double) -> None:
    memory, client = ingress

    memory.answer = lambda task: [chunk(task, 0, b'{"n":1}')]
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "streaming"}))
    waiting = memory.ingress.waiters._by_key
    await eventually_async(lambda: any(stream._delivered for stream in waiting.values()), what="the first delivery")
    memory.tell([chunk(TASK.decode(memory.written(topics.tasks(0))[0].value or b""), 0, b"{}", attempt=2)])
    response = await asking
    first, error, end = response.content.split(b"\n\n")
    assert (first, end) == (b'data: {"n":1}', b"")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    assert EVENT.decode(memory.written(topics.events(0))[0].value or b"")["kind"] == "cancel"
