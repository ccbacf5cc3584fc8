"""What became of callbacks, and sending them again, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from core.deliveries import new_delivery, row
from schemas import topics
from schemas.codec import DELIVERY
from schemas.records import Delivery, Task
from tests.support.bella import Double, row_of
from tests.support.tasks import put_one

NOW_MS = 1_769_860_800_000


async def told(ingress: Double, **changes: Any) -> tuple[Task, Delivery]:
    """Put a task that has ended and whose callback was tried once."""
    memory, _ = ingress
    task = await put_one(ingress)
    task_id = task["id"] or ""
    memory.rows[task_id.encode()] = row_of(
        task, 0, state="completed", finished_ms=5, status_code=200, result_offset=3, callback_url="http://there/x"
    )
    made = new_delivery(
        task_id,
        "completed",
        name="completed",
        url="http://there/x",
        owner=task["owner"],
        level=0,
        result_offset=3,
        payload=None,
        now_ms=NOW_MS,
    )
    delivery: Delivery = {
        **made,
        "made": 1,
        "step": 1,
        "due_ms": NOW_MS + 5_000,
        "attempts": [{"at_ms": NOW_MS, "status_code": 503, "latency_ms": 12, "reason": "the receiver answered 503"}],
        **changes,  # type: ignore[typeddict-item]
    }
    await memory.send(*row(memory.settings, delivery, now_ms=NOW_MS))
    return task, delivery


async def test_every_attempt_is_shown_and_when_the_next_is_due(ingress: Double) -> None:
    _, client = ingress
    task, _ = await told(ingress)
    response = await client.get(f"/v1/tasks/{task['id']}/deliveries")
    assert response.status_code == 200
    assert response.headers["x-task-id"] == task["id"]
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "object": "list",
        "task_id": task["id"],
        "data": [
            {
                "id": f"{task['id']}-completed",
                "object": "delivery",
                "event": "completed",
                "url": "http://there/x",
                "status": "pending",
                "attempts_made": 1,
                "next_attempt_at": "2026-01-31T12:00:05Z",
                "attempts": [
                    {
                        "attempted_at": "2026-01-31T12:00:00Z",
                        "status_code": 503,
                        "latency_ms": 12,
                        "reason": "the receiver answered 503",
                    }
                ],
            }
        ],
    }


async def test_a_resend_begins_a_new_round_at_once(ingress: Double) -> None:
    memory, client = ingress
    task, before = await told(ingress, state="disabled", due_ms=None)
    response = await client.post(f"/v1/tasks/{task['id']}/deliveries/resend")
    assert response.status_code == 202
    [shown] = response.json()["data"]
    assert (shown["status"], shown["attempts_made"], shown["id"]) == ("pending", 1, before["id"])
    [record] = memory.written(topics.retry(0))
    again = DELIVERY.decode(record.value or b"")
    assert (again["step"], again["manual"], again["result_offset"]) == (0, True, 3)
    assert again["due_ms"] == again["created_ms"] > NOW_MS
    assert memory.of(task["id"] or "") == [again], "a look after the resend shows it as pending"


async def test_an_outcome_that_nobody_was_told_of_can_be_sent(ingress: Double) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    key = (task["id"] or "").encode()
    memory.rows[key] = row_of(
        task, 0, state="failed", finished_ms=5, status_code=408, result_offset=7, callback_url="http://there/x"
    )
    response = await client.post(f"/v1/tasks/{task['id']}/deliveries/resend", json={"event": "failed"})
    assert response.status_code == 202
    [record] = memory.written(topics.retry(0))
    assert DELIVERY.decode(record.value or b"")["result_offset"] == 7
    memory.log.clear()
    memory.rows[key] = {**memory.rows[key], "result_offset": None}
    assert (await client.post(f"/v1/tasks/{task['id']}/deliveries/resend")).status_code == 410


@pytest.mark.parametrize(
    ("changes", "body", "sentence"),
    [
        ({"state": "processing", "callback_url": "http://there/x"}, b"", "has not ended yet"),
        ({"state": "completed"}, b"", "names no callback_url"),
        (
            {"state": "completed", "callback_url": "http://there/x"},
            b'{"event":"start"}',
            "no callback was sent for start",
        ),
        ({"state": "completed", "callback_url": "http://there/x"}, b'{"event":"done"}', "event must be one of"),
        ({"state": "completed", "callback_url": "http://there/x"}, b"[]", "must be a JSON object"),
        ({"state": "completed", "callback_url": "http://there/x"}, b"{", "must be a JSON object"),
        ({"state": "completed", "callback_url": "http://there/x"}, b'{"evnt":"start"}', "there is no member evnt"),
        ({"state": "completed", "callback_url": "http://there/x"}, b'{"event":["start"]}', "event must be one of"),
    ],
)
async def test_what_cannot_be_sent_again_is_a_400(
    ingress: Double, changes: dict[str, Any], body: bytes, sentence: str
) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    memory.rows[(task["id"] or "").encode()] = row_of(task, 0, result_offset=3, **changes)
    response = await client.post(f"/v1/tasks/{task['id']}/deliveries/resend", content=body)
    assert response.status_code == 400
    assert sentence in response.text
    assert memory.written(topics.retry(0)) == []


async def test_a_body_that_is_too_large_is_told_its_fixed_limit(ingress: Double) -> None:
    task, _ = await told(ingress)
    response = await ingress[1].post(f"/v1/tasks/{task['id']}/deliveries/resend", content=b" " * 4_097)
    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the body is larger than 4096 bytes (a fixed limit)"
    response = await ingress[1].post("/v1/queue/put", content=b" " * 20_001)
    assert response.json()["message"] == "the body is larger than 20000 bytes (ingress.max_body_bytes)"


async def test_a_foreign_task_is_not_found(ingress: Double) -> None:
    memory, client = ingress
    task, _ = await told(ingress)
    key = (task["id"] or "").encode()
    memory.rows[key] = {**memory.rows[key], "owner": "key-somebody"}
    assert (await client.get(f"/v1/tasks/{task['id']}/deliveries")).status_code == 404
    assert (await client.post(f"/v1/tasks/{task['id']}/deliveries/resend")).status_code == 404
    assert memory.written(topics.retry(0)) == []
