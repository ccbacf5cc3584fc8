"""Lists of administrators: everybody's tasks in one order, and dead letters page by page, marks and all."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from core.kafka.producer import Record
from schemas import topics
from schemas.codec import TASK
from tests.support.bella import BODY, PUT, Double, row_of
from tests.support.memory_cluster import bury

TASKS, LETTERS = "/v1/admin/tasks", "/v1/admin/dead-letters"


async def put(ingress: Double, owner: str | None, created_ms: int, **changes: Any) -> str:
    memory, client = ingress
    task_id = str((await client.post(PUT, json=BODY)).json()["data"])
    [record] = [one for one in memory.written(topics.tasks(0)) if one.key == task_id.encode()]
    task = TASK.decode(record.value or b"")
    row = row_of(task, len(memory.rows), owner=owner, created_ms=created_ms, **changes)
    memory.rows[task_id.encode()] = row
    return task_id


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Walk over a list; returns its pages."""
    found, after = [], None
    while True:
        params = {**query, **({} if after is None else {"after": after})}
        response = await client.get(path, params=params)
        assert response.status_code == 200, response.text
        page = response.json()
        found.append(page["data"])
        after = page["next_cursor"]
        assert page["has_more"] == (after is not None)
        if after is None:
            return found
        assert len(found) < 100


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_tasks_of_all_tenants_are_in_one_order(ingress: Double, limit: int) -> None:
    made = [await put(ingress, owner, at_ms) for at_ms in (5, 9, 7, 7) for owner in ("a", "b", "ab", "ü")]
    await put(ingress, None, 8)
    found = [one for page in await pages(ingress[1], TASKS, limit=limit) for one in page]
    assert len(found) == len(made) == len({one["task_id"] for one in found})
    times = [ingress[0].rows[one["task_id"].encode()]["created_ms"] for one in found]
    assert times == sorted(times, reverse=True)
    mine = [one for page in await pages(ingress[1], TASKS, limit=limit, owner="ab") for one in page]
    assert {one["owner"] for one in mine} == {"ab"}
    assert len(mine) == 4


async def test_filters_hold_over_pages(ingress: Double) -> None:
    for number in range(6):
        ended = {"state": "completed", "finished_ms": 5} if number % 2 else {}
        await put(ingress, f"owner-{number % 3}", number, **ended)
    done = [one for page in await pages(ingress[1], TASKS, limit=1, status="completed") for one in page]
    assert [one["status"] for one in done] == ["completed"] * 3


async def test_a_page_goes_on_after_a_task(ingress: Double) -> None:
    first, second = await put(ingress, "a", 9), await put(ingress, "b", 8)
    after = await ingress[1].get(TASKS, params={"after": first})
    assert [one["task_id"] for one in after.json()["data"]] == [second]
    unknown = await ingress[1].get(TASKS, params={"after": first[:-6] + "999999"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "after")


def letter(number: int, reason: str = "broken", **more: bytes) -> Record:
    said = {"x-reason": reason.encode(), "x-topic": b"headrace.tasks.offline", "x-partition": b"1", "x-offset": b"7"}
    said |= {f"x-{name}": value for name, value in more.items()}
    return Record(b"k%d" % number, b'{"n":1}', [*said.items(), ("mine", b"1")], number)


@pytest.mark.parametrize("limit", [1, 2, 5, 50])
async def test_letters_come_newest_first_and_each_once(ingress: Double, limit: int) -> None:
    memory, client = ingress
    for number in range(12):
        bury(memory, number % 3, letter(number * 1000, "odd" if number % 2 else "even"))
    found = [one for page in await pages(client, LETTERS, limit=limit) for one in page]
    assert sorted(one["key"] for one in found) == sorted(f"k{number * 1000}" for number in range(12))
    if limit >= 12:
        assert [one["key"] for one in found] == [f"k{number * 1000}" for number in reversed(range(12))]
    odd = [one for page in await pages(client, LETTERS, limit=limit, reason="ODD") for one in page]
    assert {one["reason"] for one in odd} == {"odd"}
    assert len(odd) == 6
    assert await pages(client, LETTERS, limit=limit, topic="tasks.online") == [[]]


async def test_a_letter_is_sent_back_as_it_was_and_once(ingress: Double) -> None:
    memory, client = ingress
    memory.ingress.cluster.there = True
    bury(memory, 2, letter(1))
    bury(memory, 3, letter(2, topic=b"somewhere.else"))
    dry = await client.post(f"{LETTERS}/redrive", json={"reason": "BROKEN", "dry_run": True})
    assert (dry.json()["chosen"], dry.json()["redriven"]) == (["2-0", "3-0"], 0)
    assert memory.written(topics.tasks(1)) == []
    answered = await client.post(f"{LETTERS}/redrive", json={"reason": "broken"})
    assert answered.status_code == 200, answered.text
    told = answered.json()
    assert (told["redriven"], list(told["skipped"])) == (1, ["3-0"])
    assert "somewhere.else, which no longer exists" in told["skipped"]["3-0"]
    [sent] = memory.written(topics.tasks(1))
    assert (sent.key, sent.value, sent.headers) == (b"k1", b'{"n":1}', [("mine", b"1")])
    shown = (await client.get(f"{LETTERS}/2-0")).json()
    assert shown["redriven_at"] is not None
    assert (shown["value"], shown["headers"]["mine"]) == ('{"n":1}', "1")
    assert (await client.get(f"{LETTERS}/2-1")).status_code == 404, "the mark is no letter"
    assert (await client.post(f"{LETTERS}/redrive", json={"topic": "tasks.offline"})).json()["chosen"] == []
    again = (await client.post(f"{LETTERS}/redrive", json={"ids": ["2-0", "2-0", "9-9"]})).json()
    assert (again["redriven"], list(again["skipped"])) == (1, ["9-9"])
    waiting = (await client.get(LETTERS, params={"redriven": "false"})).json()["data"]
    assert [one["id"] for one in waiting] == ["3-0"]
