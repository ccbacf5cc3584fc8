"""Async tasks over the wire: the object in every state, cancel, foreign and unknown ids."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import ids, topics
from tests.support.bella import Double
from tests.support.openai import error
from tests.support.tasks import CREATED, CREATED_MS, common, ended, put_one, shown, with_row


async def test_a_task_that_no_scheduler_has_seen_is_queued(ingress: Double) -> None:
    task = await put_one(ingress)
    response = await shown(ingress, task)
    assert (response.json()["status"], response.json()["progress"]) == ("queued", 0)
    assert response.headers["retry-after"] == "3"


async def test_a_running_task(ingress: Double) -> None:
    task = await with_row(
        ingress, state="processing", progress=45, started_ms=CREATED_MS + 1, updated_ms=CREATED_MS + 1_000
    )
    response = await shown(ingress, task)
    assert response.json() == common(task) | {
        "status": "processing",
        "progress": 45,
        "updated_at": "2026-01-31T12:00:01Z",
        "started_at": CREATED,
        "deadline_at": "2026-01-31T12:01:00Z",
    }
    assert response.headers["retry-after"] == "3"
    assert "preference-applied" not in response.headers


async def test_a_completed_task(ingress: Double) -> None:
    usage = {"prompt_tokens": 15, "completion_tokens": 32, "total_tokens": 47}
    body = b'{"b": 1,  "a": 12345678901234567890123}'
    task = await ended(ingress, body=body, usage=usage)
    response = await shown(ingress, task)
    assert b'"result":' + body in response.content  # as it came, byte for byte
    members = response.json()
    members.pop("result")
    assert members == common(task) | {
        "status": "completed",
        "progress": 100,
        "updated_at": "2026-01-31T12:00:02Z",
        "started_at": CREATED,
        "completed_at": "2026-01-31T12:00:02Z",
        "expires_at": "2026-01-31T12:00:09Z",
        "status_code": 200,
        "usage": {"input_tokens": 15, "output_tokens": 32},
    }
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("body", "content_type", "shown_as"),
    [
        (b"1\n00:00 hi", "text/vtt", {"result": "1\n00:00 hi", "result_content_type": "text/vtt"}),
        (b"{broken", "application/json", {"result": "{broken", "result_content_type": "application/json"}),
        (
            b"\xff\x00",
            "audio/mpeg",
            {"result": "/wA=", "result_content_type": "audio/mpeg", "result_encoding": "base64"},
        ),
    ],
)
async def test_results_that_are_no_json(
    ingress: Double, body: bytes, content_type: str, shown_as: dict[str, Any]
) -> None:
    task = await ended(ingress, body=body, content_type=content_type)
    members = (await shown(ingress, task)).json()
    assert {name: value for name, value in members.items() if name.startswith("result")} == shown_as


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no such model"}}', "no such model"),
        (b'{"error":"no such model"}', "no such model"),
        (b'{"error":{"message":7}}', "the upstream answered 404"),
        (b"nothing", "nothing"),
        (b"[]", "the upstream answered 404"),
    ],
)
async def test_a_failed_task_says_what_the_upstream_said(ingress: Double, body: bytes, message: str) -> None:
    said = {"error_code": "upstream_error", "error_message": "the upstream answered 404", "status_code": 404}
    task = await ended(ingress, row={"progress": 7}, state="failed", body=body, **said)
    assert (await shown(ingress, task)).json() == common(task) | {
        "status": "failed",
        "progress": 7,
        "updated_at": "2026-01-31T12:00:02Z",
        "started_at": CREATED,
        "failed_at": "2026-01-31T12:00:02Z",
        "expires_at": "2026-01-31T12:00:09Z",
        "status_code": 404,
        "error_code": "upstream_error",
        "error_message": message,
    }


async def test_a_task_whose_deadline_has_passed_failed_with_timeout(ingress: Double) -> None:
    said = {"error_code": "timeout", "error_message": "no outcome within 60 s", "status_code": 408}
    task = await ended(ingress, state="failed", body=None, **said)
    members = (await shown(ingress, task)).json()
    assert (members["status"], members["error_code"], members["failed_at"]) == (
        "failed",
        "timeout",
        "2026-01-31T12:00:02Z",
    )


async def test_a_cancelled_task(ingress: Double) -> None:
    task = await ended(ingress, state="cancelled", body=None, error_code="cancelled", status_code=499)
    members = (await shown(ingress, task)).json()
    assert (members["status"], members["cancelled_at"]) == ("cancelled", "2026-01-31T12:00:02Z")
    assert "result" not in members


@pytest.mark.parametrize(
    ("code", "word", "progress"), [(None, "completed", 100), ("timeout", "failed", 0), ("cancelled", "cancelled", 0)]
)
async def test_an_expired_task_has_no_result_but_tells_how_it_ended(
    ingress: Double, code: str | None, word: str, progress: int
) -> None:
    gone = {"state": "expired", "error_code": code, "updated_ms": CREATED_MS + 9_000, "result_offset": None}
    task = await ended(ingress, row=gone)
    members = (await shown(ingress, task)).json()
    assert (members["status"], members["progress"]) == ("expired", progress)
    assert members[f"{word}_at"] == "2026-01-31T12:00:02Z"
    assert members["expired_at"] == members["updated_at"] == "2026-01-31T12:00:09Z"
    assert not {"result", "expires_at", "usage"} & set(members)


@pytest.mark.parametrize("rendering", ["__str__", "task", "request", "batch_request", "uuid"])
async def test_any_rendering_of_the_id_is_taken(ingress: Double, rendering: str) -> None:
    task = await put_one(ingress)
    known = ids.parse(task["id"] or "")
    response = await ingress[1].get(f"/v1/tasks/{getattr(known, rendering)()}")
    assert response.json()["id"] == known.task()


@pytest.mark.parametrize("row", [{"owner": "key-2"}, {"owner": None}])
async def test_a_foreign_task_is_unknown(ingress: Double, row: dict[str, Any]) -> None:
    task = await with_row(ingress, **row)
    for method, path in (("GET", ""), ("POST", "/cancel")):
        response = await ingress[1].request(method, f"/v1/tasks/{task['id']}{path}")
        assert error(response, 404)["code"] == "not_found"
    assert ingress[0].written(topics.events(0)) == []


@pytest.mark.parametrize("name", ["x", "task_1", "TASK-1-0-C-260131120000-9999-000000", "task_" + "0" * 32, "%00"])
async def test_an_unknown_id(ingress: Double, name: str) -> None:
    assert error(await ingress[1].get(f"/v1/tasks/{name}"), 404)["type"] == "invalid_request_error"


async def test_wrong_methods_and_keys_are_told_in_the_same_form(ingress: Double) -> None:
    client = ingress[1]
    assert error(await client.delete("/v1/tasks/x"), 405)["code"] == "method_not_allowed"
    for path in ("/v1/tasks", "/v1/tasks/x"):
        assert error(await client.get(path, headers={"authorization": "Bearer no"}), 401)
    head = await client.head(f"/v1/tasks/{(await put_one(ingress))['id']}")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/json")


async def test_cancel_asks_the_scheduler_and_shows_the_task(ingress: Double) -> None:
    task = await with_row(ingress, state="processing")
    response = await ingress[1].post(f"/v1/tasks/{ids.parse(task['id'] or '').task()}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "processing")
    [record] = ingress[0].written(topics.events(0))
    assert record.key == (task["id"] or "").encode()


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "expired"])
async def test_a_task_that_has_ended_is_not_cancelled(ingress: Double, state: str) -> None:
    task = await with_row(ingress, state=state, finished_ms=CREATED_MS)
    response = await ingress[1].post(f"/v1/tasks/{task['id']}/cancel")
    assert error(response, 400)["code"] == "task_not_cancellable"
    assert ingress[0].written(topics.events(0)) == []
