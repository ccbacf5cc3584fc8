"""Answers of get."""

from __future__ import annotations

from typing import Any

import pytest

from core.kafka.producer import Record
from schemas import ids, topics
from schemas.codec import RESULT
from schemas.records import Result
from tests.support.bella import Double, envelope, row_of
from tests.support.results import result_of
from tests.support.tasks import put_one


async def test_get_right_after_put(ingress: Double) -> None:
    task = await put_one(ingress, trace_id="t-1")
    response = await ingress[1].get(f"/v1/queue/{task['id']}")
    assert response.json() == {
        "task_id": task["id"],
        "endpoint": "/v1/chat/completions",
        "queue": "chat",
        "level": 0,
        "data": {"model": "m", "messages": []},
        "status": "waiting",
        "start_time": task["created_ms"],
        "expire_time": task["created_ms"] + 86_400_000,
        "response_mode": "callback",
        "trace_id": "t-1",
    }


async def test_get_of_a_task_that_another_process_accepted(ingress: Double) -> None:
    task = await put_one(ingress)
    ingress[0].connected.recent_writes._offsets.clear()
    assert (await ingress[1].get(f"/v1/queue/{task['id']}")).json()["status"] == "waiting"


@pytest.mark.parametrize("rendering", ["task", "batch_request", "uuid"])
async def test_get_by_any_rendering(ingress: Double, rendering: str) -> None:
    task = await put_one(ingress)
    other = getattr(ids.parse(task["id"] or ""), rendering)()
    assert (await ingress[1].get(f"/v1/queue/{other}")).json()["task_id"] == task["id"]


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"state": "processing", "started_ms": 5}, "queued"),
        ({"state": "failed", "error_code": "timeout", "status_code": 408, "finished_ms": 9}, "timeout"),
        ({"state": "failed", "error_code": "upstream", "status_code": 502, "finished_ms": 9}, "failed"),
        ({"state": "cancelled", "error_code": "cancelled", "status_code": 499, "finished_ms": 9}, "cancelled"),
        ({"state": "completed", "status_code": 200, "finished_ms": 9}, "succeeded"),
        ({"state": "expired", "status_code": 200, "finished_ms": 9}, "succeeded"),
        ({"state": "expired", "error_code": "timeout", "status_code": 408, "finished_ms": 9}, "timeout"),
    ],
)
async def test_get_translates_states(ingress: Double, row: dict[str, Any], status: str) -> None:
    task = await put_one(ingress)
    key = (task["id"] or "").encode()
    ingress[0].rows[key] = row_of(task, 0, **row)
    body = (await ingress[1].get(f"/v1/queue/{task['id']}")).json()
    assert body["status"] == status
    assert ("result" in body) is ("finished_ms" in row and row["state"] != "expired")
    assert "running_time" not in body or body["running_time"] == 5


async def test_get_of_a_finished_task_shows_the_body_as_it_came(ingress: Double) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    task_id = ids.parse(task["id"] or "")
    tp = memory.topic_partition(topics.results(0), task_id.partition)
    for content_type, body, shown in [
        ("application/json", b'{"a": 1.50, "big": 123456789012345678901234567890}', None),
        ("text/event-stream", b"data: {}\n\ndata: [DONE]\n\n", "data: {}\n\ndata: [DONE]\n\n"),
        ("application/json", b"not json", "not json"),
        ("image/png", b"\x89PNG", "iVBORw=="),
    ]:
        result = result_of(str(task_id), body=body, content_type=content_type)
        offset = await memory.send(tp.topic, tp.partition, _record(result))
        memory.rows[str(task_id).encode()] = row_of(
            task, 0, state="completed", status_code=200, started_ms=5, finished_ms=9, result_offset=offset
        )
        response = await client.get(f"/v1/queue/{task_id}")
        if shown is None:
            assert (
                b'"result":{"status_code":200,"request_id":"%b","body":%b}'
                % (
                    str(task_id).encode(),
                    body,
                )
                in response.content
            )
        else:
            assert response.json()["result"]["body"] == shown
        assert response.json()["running_time"] == 5
        assert response.json()["completed_time"] == 9


async def test_get_of_what_is_not_there(ingress: Double) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    memory.rows[(task["id"] or "").encode()] = row_of(task, 0, owner="key-somebody")
    unknown = ["TASK-1-0-C-260101000000-0000-000001", "TASK-1-0-C-260101000000-9999-000001", "nonsense", "put", "%00"]
    for text in [task["id"], *unknown]:
        response = await client.get(f"/v1/queue/{text}")
        assert envelope(response)["code"] == 404


def _record(result: Result) -> Record:
    return Record(result["id"].encode(), RESULT.encode(result))
