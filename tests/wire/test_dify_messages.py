"""Answers of completion-messages, byte for byte."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from schemas import ids, topics
from schemas.codec import EVENT
from schemas.records import Chunk, Result, Task
from tests.support.bella import Double, answer, chunk
from tests.support.clocks import SteppingClock
from tests.support.dify import BODY, DIFY, URL, completion, written
from tests.support.results import result_of
from tests.support.waiting import eventually_async

USAGE = {"prompt_tokens": 1033, "completion_tokens": 128, "total_tokens": 1161}
PRICED = (
    b'{"prompt_tokens":1033,"prompt_unit_price":"0.001","prompt_price_unit":"0.001","prompt_price":"0.0010330",'
    b'"completion_tokens":128,"completion_unit_price":"0.002","completion_price_unit":"0.001",'
    b'"completion_price":"0.0002560","total_tokens":1161,"total_price":"0.0012890","currency":"USD","latency":2.0}'
)


SETTINGS = DIFY


def delta(text: str | None, **members: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}}
    return json.dumps({"object": "chat.completion.chunk", "choices": [choice], **members}).encode()


def streamed(*frames: bytes, **changes: Any) -> Any:
    def tell(task: Task) -> list[Chunk | Result]:
        end = result_of(task["id"] or "", mode="streaming", chunks=1, content_type="text/event-stream", body=b"")
        return [chunk(task, 0, *frames), {**end, **changes}]  # type: ignore[typeddict-item]

    return tell


@pytest.mark.parametrize("path", [URL, f"/v1{URL}"])
async def test_blocking(ingress: Double, path: str) -> None:
    memory, client = ingress
    memory.answer = answer(body=completion(), usage=USAGE)
    response = await client.post(path, json=BODY, headers={"x-headrace-queue": "priced"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    task = ids.parse(response.headers["x-task-id"])
    one = task.uuid().encode()
    assert response.content == (
        b'{"event":"message","task_id":"%b","id":"%b","message_id":"%b","mode":"completion","answer":"Hi there.",'
        b'"metadata":{"usage":%b,"retriever_resources":[]},"created_at":%d}' % (one, one, one, PRICED, task.time_s)
    )
    assert written(memory)["user"] == "abc-123"
    assert written(memory)["endpoint"] == "/v1/chat/completions"
    assert json.loads(written(memory)["data"] or b"") == {
        "model": "priced",
        "messages": [{"role": "user", "content": "Hello, world!"}],
        "stream": False,
    }


async def test_an_unknown_price_is_zero(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(body=completion(), usage=USAGE)
    usage = (await client.post(URL, json=BODY)).json()["metadata"]["usage"]
    prices = {name: usage[name] for name in usage if "price" in name or name == "currency"}
    assert prices.pop("currency") == "USD"
    assert set(prices.values()) == {"0"}
    assert len(prices) == 7


async def test_streaming(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = streamed(
        delta(""), delta("Hel"), delta("lo ✓"), delta(None), json.dumps({"choices": [], "usage": USAGE}).encode()
    )
    body = BODY | {"response_mode": "streaming"}
    response = await client.post(URL, json=body, headers={"x-headrace-queue": "priced"})
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    task = ids.parse(response.headers["x-task-id"])
    one = task.uuid().encode()
    common = b'"task_id":"%b","id":"%b","message_id":"%b","created_at":%d' % (one, one, one, task.time_s)
    content = re.sub(rb'"latency":[0-9.e-]+', b'"latency":2.0', response.content)
    assert content == (
        b'data: {"event":"message",%b,"answer":"Hel"}\n\ndata: {"event":"message",%b,"answer":"lo \xe2\x9c\x93"}\n\n'
        b'data: {"event":"message_end",%b,"metadata":{"usage":%b,"retriever_resources":[]},"files":null}\n\n'
        % (common, common, common, PRICED)
    )
    assert json.loads(written(memory)["data"] or b"")["stream_options"] == {"include_usage": True}


async def test_a_stopped_stream_ends_with_the_usage_of_its_text(ingress: Double) -> None:
    memory, client = ingress
    cancelled = {"state": "cancelled", "status_code": 499, "error_code": "cancelled", "body": None, "chunks": 0}
    memory.answer = streamed(delta("one"), delta(" two"), **cancelled)
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"})
    events = [json.loads(frame.removeprefix("data: ")) for frame in response.text.strip().split("\n\n")]
    assert [event["event"] for event in events] == ["message", "message", "message_end"]
    usage = events[-1]["metadata"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (4, 2, 6)


async def test_a_stream_that_fails_ends_with_an_error_event(ingress: Double) -> None:
    memory, client = ingress
    failure = {
        "state": "failed",
        "status_code": 500,
        "error_code": "upstream_error",
        "error_message": "broken",
        "chunks": 1,
    }
    memory.answer = streamed(delta("one"), **failure)
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"})
    assert response.status_code == 200
    task = ids.parse(response.headers["x-task-id"])
    assert response.content.split(b"\n\n")[1:] == [
        b'data: {"event":"error","message_id":"%b","created_at":%d,"status":400,"code":"completion_request_error",'
        b'"message":"broken"}' % (task.uuid().encode(), task.time_s),
        b"",
    ]


async def test_pings_while_the_model_is_silent(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.streaming.time", SteppingClock(20))  # three silences to the minute
    memory, client = ingress
    memory.answer = lambda task: [chunk(task, 0, delta("one"))]
    headers = {"x-headrace-timeout": "60"}
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"}, headers=headers)
    first, *pings, error, end = response.content.split(b"\n\n")
    assert json.loads(first.removeprefix(b"data: "))["answer"] == "one"
    assert pings
    assert set(pings) == {b"event: ping"}
    assert json.loads(error.removeprefix(b"data: "))["code"] == "completion_request_error"
    assert end == b""
    assert EVENT.decode(memory.written(topics.events(0))[0].value or b"")["kind"] == "cancel"


async def test_an_answer_in_one_piece_is_one_message(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = streamed(completion("All at once.", usage=USAGE))
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"})
    events = [json.loads(frame.removeprefix("data: ")) for frame in response.text.strip().split("\n\n")]
    assert [event["event"] for event in events] == ["message", "message_end"]
    assert events[0]["answer"] == "All at once."
    assert events[1]["metadata"]["usage"]["total_tokens"] == 1161


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(frame.removeprefix("data: ")) for frame in text.strip().split("\n\n")]


async def test_a_character_cut_between_two_frames_is_whole(ingress: Double) -> None:
    memory, client = ingress
    # json.dumps writes the halves of a pair as escapes, as many servers do
    memory.answer = streamed(
        delta("a\ud83d"), delta("\ude00b\ud83d"), delta("", logprobs=float("-inf")), delta("\ude01")
    )
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"})
    assert "".join(event.get("answer", "") for event in told(response.text)) == "a😀b😁"


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
async def test_an_answer_that_ends_in_half_a_character_is_not_refused(ingress: Double, mode: str) -> None:
    memory, client = ingress
    whole = json.dumps({"choices": [{"message": {"content": "Hello \ud83d"}}], "logprob": float("nan")}).encode()
    memory.answer = streamed(delta("Hello "), delta("\ud83d")) if mode == "streaming" else answer(body=whole)
    response = await client.post(URL, json=BODY | {"response_mode": mode})
    assert response.status_code == 200
    text = "".join(event.get("answer", "") for event in told(response.text)) if mode == "streaming" else ""
    assert (text or response.json()["answer"]) == "Hello \ufffd"


@pytest.mark.parametrize(
    "body", [b'{"error":"too long"}', b'{"detail":"too long"}', b'{"object":"error","message":"too long"}', b"too long"]
)
async def test_the_reason_of_the_upstream_is_told_whatever_its_form(ingress: Double, body: bytes) -> None:
    memory, client = ingress
    failure = {
        "status_code": 400,
        "error_code": "upstream_error",
        "error_message": "the upstream answered 400: too long",
    }
    memory.answer = answer(state="failed", body=body, content_type="application/json", **failure)
    assert "too long" in (await client.post(URL, json=BODY)).json()["message"]


@pytest.mark.parametrize("state", ["failed", "completed"])
async def test_an_error_that_the_upstream_says_in_its_stream(ingress: Double, state: str) -> None:
    memory, client = ingress
    error = b'{"error":{"message":"out of memory","code":"oom"}}'
    failure = {"status_code": 502, "error_code": "upstream_error", "error_message": "said so"}
    memory.answer = streamed(delta("one"), error, **({"state": state, **failure} if state == "failed" else {}))
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"})
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert (last["event"], last["code"], last["message"]) == ("error", "completion_request_error", "out of memory")
    assert "task_id" not in last


async def test_a_model_that_thinks_for_long_is_pinged_over(ingress: Double) -> None:
    memory, client = ingress
    thought = json.dumps({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}).encode()

    def tell(task: Task) -> list[Chunk | Result]:
        def later(seq: int) -> None:
            if seq < 40:
                memory.tell([chunk(task, seq, thought)])
                asyncio.get_running_loop().call_later(0.01, later, seq + 1)
            else:
                end = result_of(task["id"] or "", mode="streaming", chunks=41, content_type="text/event-stream")
                memory.tell([chunk(task, 40, delta("Yes.")), {**end, "body": b""}])

        later(0)
        return []

    memory.answer = tell
    response = await client.post(URL, json=BODY | {"response_mode": "streaming"})
    frames = response.text.strip().split("\n\n")
    assert frames.count("event: ping") >= 2
    assert [json.loads(frame.removeprefix("data: "))["event"] for frame in frames if frame.startswith("data")] == [
        "message",
        "message_end",
    ]


async def test_a_shutdown_ends_streams_and_blocking_calls(ingress: Double) -> None:
    memory, client = ingress
    body = BODY | {"response_mode": "streaming"}
    memory.answer = lambda task: [chunk(task, 0, delta("one"))] if task["mode"] == "streaming" else []
    asking = [asyncio.create_task(client.post(URL, json=one)) for one in (body, BODY)]
    await eventually_async(lambda: len(memory.written(topics.tasks(0))) == 2, what="both tasks")
    memory.ingress.waiters.shut_down()
    streamed_answer, blocking = [await one for one in asking]
    last = json.loads(streamed_answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert (last["event"], last["status"], last["code"]) == ("error", 500, "internal_server_error")
    assert (blocking.status_code, blocking.json()["code"]) == (500, "internal_server_error")
    assert memory.written(topics.events(0)) == []  # the tasks go on
