"""Answers of put in the callback and blocking modes, and its errors, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from ingress.waiting.blocking import BlockingWaiter
from schemas import ids, topics
from schemas.codec import EVENT, TASK
from schemas.headers import find
from tests.support.bella import BODY, ID, PUT, Double, answer, envelope, shutting_down
from tests.support.memory_ingress import HEADERS
from tests.support.spans import PARENT, context_of, kept_spans, parent_of


async def test_callback(ingress: Double) -> None:
    memory, client = ingress
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    response = await client.post(PUT, json=BODY | {"callback_url": "http://c/"}, headers={"traceparent": trace})
    assert response.status_code == 200
    assert re.fullmatch(rb'\{"code":200,"timestamp":\d{13},"data":"TASK-[-\w]+"\}', response.content)
    task_id = response.json()["data"]
    assert ID.fullmatch(task_id)
    assert response.headers["x-task-id"] == task_id
    [(tp, [record])] = memory.log.items()
    assert (tp.topic, tp.partition) == ("headrace.tasks.online", ids.parse(task_id).partition)
    assert record.key == task_id.encode()
    task = TASK.decode(record.value or b"")
    assert task["id"] == task_id
    assert task["owner"] == "key-" + sha256(b"hr-local").hexdigest()[:12]
    assert task["callback_url"] == "http://c/"
    assert record.timestamp_ms == task["created_ms"]
    assert find(record.headers, "traceparent") == trace.encode()
    assert find(record.headers, "x-deadline-ms") == b"%d" % (task["created_ms"] + 86_400_000)


async def test_the_write_of_a_task_is_a_span(ingress: Double) -> None:
    memory, client = ingress
    with kept_spans() as spans:
        response = await client.post(PUT, json=BODY, headers={"traceparent": PARENT.decode()})
    span = spans.one("send headrace.tasks.online")
    assert parent_of(span) == int(PARENT[36:52], 16)
    [record] = memory.written(topics.tasks(0))
    assert find(record.headers, "traceparent") == context_of(span).encode()
    assert dict(span.attributes or {})["messaging.message.id"] == response.headers["x-task-id"]


@pytest.mark.parametrize("trace", ["", "x", "ff-" + "1" * 32 + "-" + "1" * 16 + "-00", "00-" + "0" * 32 + "-1-00"])
async def test_a_broken_trace_context_is_left_out(ingress: Double, trace: str) -> None:
    memory, client = ingress
    assert (await client.post(PUT, json=BODY, headers={"traceparent": trace})).status_code == 200
    assert find(memory.written(topics.tasks(0))[0].headers, "traceparent") is None


async def test_one_idempotency_key_has_one_home(ingress: Double) -> None:
    memory, client = ingress
    for _ in range(5):
        await client.post(PUT, json=BODY, headers={"idempotency-key": "abc"})
    assert len(memory.log) == 1
    assert TASK.decode(memory.written(topics.tasks(0))[0].value or b"")["idempotency_key"] == "abc"
    for _ in range(6):
        await client.post(PUT, json=BODY)
    assert len(memory.log) == 6


@pytest.mark.parametrize("key", ["", " ", "x" * 257, "tab\there", "caf\u00e9"])
async def test_an_idempotency_key_is_checked(ingress: Double, key: str) -> None:
    memory, client = ingress
    response = await client.post(PUT, json=BODY, headers=[(b"idempotency-key", key.encode("latin-1"))])
    assert envelope(response) == {
        "code": 400,
        "message": "Idempotency-Key must be 1 to 256 printable ASCII characters",
        "field": "Idempotency-Key",
    }
    assert memory.log == {}


@pytest.mark.parametrize("mode", ["callback", "blocking", "streaming"])
async def test_without_a_judge_a_keyed_request_may_be_sent_again(ingress: Double, mode: str) -> None:
    _, client = ingress
    response = await client.post(PUT, json=BODY | {"response_mode": mode}, headers={"idempotency-key": "k"})
    assert envelope(response)["code"] == 503
    assert response.headers["retry-after"] == "2"
    assert "send it again with the key" in response.json()["message"]


async def test_a_big_body_goes_to_the_object_store(ingress: Double) -> None:
    memory, client = ingress
    data = {"text": "x" * 5000}
    assert (await client.post(PUT, json=BODY | {"data": data})).status_code == 200
    task = TASK.decode(memory.written(topics.tasks(0))[0].value or b"")
    assert task["data"] is None
    assert task["data_ref"] is not None
    assert json.loads(await memory.ingress.blobs.get(task["data_ref"])) == data


async def test_blocking_passes_the_upstreams_answer_on(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(status_code=418, body=b'{"tea": 1}', content_type="application/json; charset=utf-8")
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking"})
    assert response.status_code == 418
    assert response.content == b'{"tea": 1}'
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert ID.fullmatch(response.headers["x-task-id"])
    assert len(memory.ingress.waiters) == 0


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"status_code": 502, "error_message": "no upstream answered"}, "no upstream answered"),
        ({"status_code": 503, "error_message": None}, "the task ended as failed"),
        ({"status_code": 504, "error_message": "too slow"}, "too slow"),
    ],
)
async def test_blocking_without_an_upstreams_answer(ingress: Double, result: dict[str, Any], message: str) -> None:
    memory, client = ingress
    memory.answer = answer(state="failed", error_code="x", body=None, **result)
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking"})
    assert response.status_code == result["status_code"]
    assert envelope(response) == {"code": result["status_code"], "message": message}


async def test_blocking_that_times_out(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(state="failed", status_code=408, error_code="timeout", error_message="too late", body=None)
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking", "timeout": 1})
    assert response.headers["x-should-retry"] == "false"
    assert envelope(response) == {"code": 408, "message": "too late"}


async def test_blocking_that_was_cancelled_elsewhere(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(state="cancelled", status_code=499, error_code="cancelled", error_message="c", body=None)
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking"})
    assert response.headers["x-should-retry"] == "false"
    assert envelope(response) == {"code": 499, "message": "c"}


async def test_blocking_when_nobody_answers(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.blocking.GRACE_S", -0.95)  # of the second that the shortest time-out is
    memory, client = ingress
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking", "timeout": 1})
    assert envelope(response) == {"code": 408, "message": "the task timed out and was cancelled"}
    [cancel] = memory.written(topics.events(0))
    asked = EVENT.decode(cancel.value or b"")
    assert (asked["kind"], asked["id"]) == ("cancel", response.headers["x-task-id"])


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
async def test_too_many_waiting(ingress: Double, mode: str) -> None:
    memory, client = ingress
    waiters = memory.ingress.waiters
    with waiters.registered(b"a", BlockingWaiter()), waiters.registered(b"b", BlockingWaiter()):
        response = await client.post(PUT, json=BODY | {"response_mode": mode})
        assert int(response.headers["retry-after"]) >= 1
        assert envelope(response)["code"] == 503
        assert (await client.post(PUT, json=BODY)).status_code == 200
    assert len(memory.written(topics.tasks(0))) == 1


@pytest.mark.parametrize("mode", ["callback", "blocking", "streaming"])
async def test_without_kafka(ingress: Double, mode: str) -> None:
    memory, client = ingress
    memory.broken = True
    response = await client.post(PUT, json=BODY | {"response_mode": mode})
    assert response.headers["retry-after"] == "2"
    assert "nothing was accepted" in envelope(response)["message"]
    assert response.status_code == 503
    assert len(memory.ingress.waiters) == 0


async def test_at_shutdown_those_who_wait_are_told(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = shutting_down(memory)
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking"})
    assert response.headers["x-should-retry"] == "false"
    assert ID.fullmatch(response.headers["x-task-id"])
    assert envelope(response)["code"] == 503


@pytest.mark.parametrize("headers", [{"authorization": "Bearer no"}, {"authorization": ""}])
@pytest.mark.parametrize(("method", "path"), [("POST", PUT), ("GET", "/v1/queue/TASK-1-0-C-260101000000-0000-000001")])
async def test_the_key_comes_first(ingress: Double, headers: dict[str, str], method: str, path: str) -> None:
    _, client = ingress
    response = await client.request(method, path, headers=headers, content=b"{")
    assert response.headers["www-authenticate"] == "Bearer"
    assert envelope(response)["code"] == 401


async def test_wrong_bodies(ingress: Double) -> None:
    memory, client = ingress
    response = await client.post(PUT, content=b'{"queue":"q","endpoint":"/x"}')
    assert envelope(response) == {"code": 400, "message": "data is required", "field": "data"}
    response = await client.post(PUT, content=b'{"queue":"q",}')
    assert envelope(response)["message"].startswith("the body is not valid JSON at line 1 column 13")
    response = await client.post(PUT, content=b"x" * 20_001)
    assert envelope(response)["code"] == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 9_000

    assert envelope(await client.post(PUT, content=endless()))["code"] == 413
    response = await client.post(PUT, json=BODY, headers={"content-encoding": "gzip"})
    assert envelope(response)["code"] == 400
    assert memory.log == {}


async def test_unknown_paths_and_methods(ingress: Double) -> None:
    _, client = ingress
    for path in ("/nope", "/v1/queue/put/", "/v1/queue"):
        assert envelope(await client.post(path))["code"] == 404
    response = await client.put(PUT)
    assert response.headers["allow"] == "POST"
    assert envelope(response)["code"] == 405
    assert envelope(await client.post("/v1/queue/TASK-1"))["code"] == 405


async def test_probes_need_no_key(ingress: Double) -> None:
    _, client = ingress
    nobody = {"authorization": ""}
    assert (await client.get("/livez", headers=nobody)).json() == {"live": True}
    response = await client.get("/readyz", headers=nobody)
    assert response.status_code == 503
    assert response.json()["ready"] is False
    assert any("scheduler" in sentence for sentence in response.json()["missing"])
    await client.post(PUT, json=BODY, headers=HEADERS)
    text = (await client.get("/metrics", headers=nobody)).text
    assert 'headrace_ingress_accepted_total{level="online",mode="callback"} 1.0' in text
    assert "headrace_ingress_submit_seconds_count 1.0" in text
    assert "headrace_ingress_blocking_requests 0.0" in text
