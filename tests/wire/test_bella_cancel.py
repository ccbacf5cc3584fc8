"""Answers of cancel; what follows from it is tested with the real roles."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import ids, topics
from schemas.codec import EVENT
from tests.support.bella import Double, envelope, row_of
from tests.support.memory_ingress import HEADERS
from tests.support.tasks import put_one


async def test_cancel_is_asked_of_the_scheduler_in_the_home_of_the_task(ingress: Double) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    task_id = ids.parse(task["id"] or "")
    response = await client.post(f"/v1/queue/{task_id.uuid()}/cancel")
    assert (response.status_code, response.content) == (202, b'"%b"' % str(task_id).encode())
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-task-id"] == str(task_id)
    [record] = memory.written(topics.events(0))
    asked = EVENT.decode(record.value or b"")
    assert (asked["kind"], asked["id"], asked["owner"]) == ("cancel", str(task_id), task["owner"])
    assert memory.log[memory.topic_partition(topics.events(0), task_id.partition)] == [record]


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "expired"])
async def test_an_ended_task_is_not_cancellable(ingress: Double, state: Any) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    memory.rows[(task["id"] or "").encode()] = row_of(task, 0, state=state)
    error = envelope(await client.post(f"/v1/queue/{task['id']}/cancel"))
    assert error == {"code": 400, "message": f"task_not_cancellable: task {task['id']} has ended already ({state})"}
    assert memory.written(topics.events(0)) == []


async def test_foreign_and_unknown_tasks_are_not_found(ingress: Double) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    memory.rows[(task["id"] or "").encode()] = row_of(task, 0, owner="key-somebody")
    for text in (task["id"], "TASK-1-0-C-260101000000-0000-000001", "nonsense"):
        assert envelope(await client.post(f"/v1/queue/{text}/cancel"))["code"] == 404
    assert (
        envelope(await client.post(f"/v1/queue/{task['id']}/cancel", headers=HEADERS | {"authorization": ""}))["code"]
        == 401
    )
    assert memory.written(topics.events(0)) == []


async def test_a_twin_is_shown_and_cancelled_as_the_first_and_a_refused_one_is_no_task(ingress: Double) -> None:
    memory, client = ingress
    first, twin, refused = [await put_one(ingress) for _ in range(3)]
    memory.rows[(first["id"] or "").encode()] = row_of(first, 0)
    for task, code in ((twin, None), (refused, "idempotency_conflict")):
        memory.rows[(task["id"] or "").encode()] = row_of(
            task, 0, state="expired", duplicate_of=first["id"], error_code=code
        )
    assert (await client.get(f"/v1/queue/{twin['id']}")).json()["task_id"] == first["id"]
    assert (await client.post(f"/v1/queue/{twin['id']}/cancel")).json() == first["id"]
    assert envelope(await client.get(f"/v1/queue/{refused['id']}"))["code"] == 404
    assert envelope(await client.post(f"/v1/queue/{refused['id']}/cancel"))["code"] == 404


async def test_a_cancel_that_waits_for_its_task_hides_nothing(ingress: Double) -> None:
    memory, client = ingress
    task = await put_one(ingress)
    memory.rows[(task["id"] or "").encode()] = row_of(task, -1, state="expired", error_code="cancelled", queue="")
    shown = (await client.get(f"/v1/queue/{task['id']}")).json()
    assert (shown["queue"], shown["status"]) == ("chat", "waiting")
