"""The list of tasks over the wire: order, filters, pages, and what it refuses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ingress.api.tasks import listing
from schemas import ids, topics
from schemas.codec import TASK
from tests.support.bella import BODY, PUT, Double, row_of
from tests.support.openai import error
from tests.support.records import task, task_id

DAY_MS = 1_769_817_600_000
"""2026-01-31T00:00:00Z"""


@pytest.fixture
def owner(ingress: Double) -> str:
    """Return the tenant of the key that the tests use."""
    return str(ingress[0].ingress.keys.holder("hr-local", "read").owner)


def add(ingress: Double, owner: str | None, number: int, **changes: Any) -> str:
    """Add the row of a task that was created `number` seconds into the day."""
    name = task_id()
    made = task(id=name, owner=owner, timeout_ms=1_000)
    at = DAY_MS + number * 1_000
    ingress[0].rows[name.encode()] = row_of(made, 0, **{"created_ms": at, "updated_ms": at, **changes})
    return ids.parse(name).task()


async def listed(ingress: Double, query: str = "") -> dict[str, Any]:
    response: httpx.Response = await ingress[1].get(f"/v1/tasks{query}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    assert set(found) == {"object", "data", "first_id", "last_id", "has_more", "next_cursor"}
    assert found["first_id"] == (found["data"][0]["id"] if found["data"] else None)
    assert found["last_id"] == (found["data"][-1]["id"] if found["data"] else None)
    assert found["has_more"] == (found["next_cursor"] is not None)
    return found


async def test_an_empty_list(ingress: Double) -> None:
    response = await ingress[1].get("/v1/tasks")
    assert response.content == (
        b'{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false,"next_cursor":null}'
    )


async def test_the_callers_own_tasks_newest_first(ingress: Double, owner: str) -> None:
    names = [add(ingress, owner, number) for number in range(3)]
    add(ingress, "key-2", 1)
    add(ingress, None, 1)
    add(ingress, owner, 1, duplicate_of="TASK-1", state="expired")
    add(ingress, owner, 1, source_offset=-1, state="expired")
    found = await listed(ingress)
    assert [one["id"] for one in found["data"]] == names[::-1]
    assert found["data"][0] == {
        "id": names[2],
        "object": "task",
        "status": "queued",
        "progress": 0,
        "model_code": "m",
        "request_id": names[2].replace("task_", "req_"),
        "queue": "chat",
        "level": 0,
        "endpoint": "/v1/chat/completions",
        "created_at": "2026-01-31T00:00:02Z",
        "updated_at": "2026-01-31T00:00:02Z",
        "deadline_at": "1970-01-01T00:00:02Z",
    }


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("status=queued", [0, 1]),
        ("status=completed", [2]),
        ("status=queued,completed", [0, 1, 2]),
        ("status=failed", []),
        ("queue=other", [1]),
        ("queue=oth", []),
        ("model=big", [2]),
        ("level=1", [0]),
        ("level=online", [1, 2]),
        ("status=queued&level=0", [1]),
        (f"created_after={DAY_MS // 1000 + 1}", [1, 2]),
        (f"created_before={DAY_MS // 1000 + 1}", [0]),
        ("created_after=2026-01-31T00:00:01Z&created_before=2026-01-31T00:00:02Z", [1]),
        ("created_after=2026-01-31T01:00:01%2B01:00", [1, 2]),
        ("created_after=2026-01-31T01:00:01+01:00", [1, 2]),
        ("created_after=2026-01-31T00:00:01.5", [2]),
        ("created_after=2026-02-01", []),
        ("created_before=1900-01-01", []),
    ],
)
async def test_filters(ingress: Double, owner: str, query: str, numbers: list[int]) -> None:
    names = [
        add(ingress, owner, 0, level=1),
        add(ingress, owner, 1, queue="other"),
        add(ingress, owner, 2, state="completed", model="big"),
    ]
    found = await listed(ingress, f"?{query}")
    assert [one["id"] for one in found["data"]] == [names[number] for number in reversed(numbers)]


async def test_a_list_waits_for_what_its_tenant_has_just_put_here(
    ingress: Double, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, client = ingress
    await client.post(PUT, json=BODY)
    put = TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")

    async def wait(key: bytes, *, seconds: float) -> None:
        assert (key, seconds > 0) == ((put["id"] or "").encode(), True)
        memory.rows[key] = row_of(put, 0)

    monkeypatch.setattr(memory, "wait", wait)
    assert len((await listed(ingress))["data"]) == 1
    memory.rows.clear()
    assert (await listed(ingress))["data"] == []  # waited for once


@pytest.mark.parametrize("by", ["last_id", "next_cursor"])
async def test_pages(ingress: Double, owner: str, by: str) -> None:
    names = [add(ingress, owner, number // 2) for number in range(7)]
    seen: list[str] = []
    query = "?limit=3"
    sizes = []
    while True:
        page = await listed(ingress, query)
        sizes.append(len(page["data"]))
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        query = f"?limit=3&after={page[by]}"
        add(ingress, owner, 100)  # what is new comes before the first page
    assert sizes == [3, 3, 1]
    assert sorted(seen) == sorted(names)


async def test_a_cursor_outlives_its_task(ingress: Double, owner: str) -> None:
    names = [add(ingress, owner, number) for number in range(3)]
    page = await listed(ingress, "?limit=2")
    ingress[0].rows.pop(str(ids.parse(page["last_id"])).encode())
    rest = await listed(ingress, f"?after={page['next_cursor']}")
    assert [one["id"] for one in rest["data"]] == [names[0]]


async def test_a_page_ends_when_it_has_looked_at_enough(
    ingress: Double, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCAN_ENTRIES", 4)
    monkeypatch.setattr(listing, "SLICE_ENTRIES", 2)
    wanted = add(ingress, owner, 0, queue="other")
    for number in range(1, 12):
        add(ingress, owner, number)
    query, pages, found = "?queue=other&limit=1", 0, []
    while True:
        page = await listed(ingress, query)
        pages += 1
        found += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        query = f"?queue=other&limit=1&after={page['next_cursor']}"
    assert found == [wanted]
    assert pages == 4


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=1&limit=2", "limit"),
        ("status=done", "status"),
        ("status=", "status"),
        ("status=queued,", "status"),
        ("level=2", "level"),
        ("created_after=yesterday", "created_after"),
        ("created_before=99999999999999999", "created_before"),
        ("created_after=2026-13-01", "created_after"),
        ("after=x", "after"),
        ("after=1-task_1", "after"),
        ("statsu=queued", "statsu"),
    ],
)
async def test_a_wrong_parameter_is_named(ingress: Double, query: str, field: str) -> None:
    assert error(await ingress[1].get(f"/v1/tasks?{query}"), 400)["param"] == field


async def test_a_page_does_not_follow_foreign_tasks(ingress: Double, owner: str) -> None:
    foreign, unknown = add(ingress, "key-2", 1), ids.parse(task_id()).task()
    messages = []
    for name in (foreign, unknown):
        refused = error(await ingress[1].get(f"/v1/tasks?after={name}"), 404)
        messages.append(refused["message"].replace(name, ""))
    assert messages[0] == messages[1]


async def test_a_read_model_that_is_behind_makes_no_list(ingress: Double) -> None:
    ingress[0].caught_up = False
    refused = await ingress[1].get("/v1/tasks")
    assert error(refused, 503)["code"] == "unavailable"
    assert refused.headers["retry-after"]
