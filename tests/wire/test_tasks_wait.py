"""Looks that wait for the end of their task: woken by it, bounded, and cheap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingress.auth.key_entry import KeyQuota
from tests.support.bella import Double
from tests.support.tasks import ended, polls_of, shown, with_row
from tests.support.waiting import eventually_async


def waits_that_are_over(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let every wait for the end of a task be over at once; how long each was asked to be is noted."""
    waits: list[float] = []

    async def over(_: bytes, *, seconds: float) -> bool:
        waits.append(seconds)
        return False

    monkeypatch.setattr(ingress[0], "wait_until_ended", over)
    return waits


async def test_a_wait_ends_with_the_task(ingress: Double) -> None:
    task = await with_row(ingress, state="processing")
    looking = asyncio.create_task(shown(ingress, task, prefer="respond-async, wait=30"))
    polls = polls_of(ingress)
    await eventually_async(lambda: len(polls) == 1, what="the held look")
    assert b"\nheadrace_ingress_long_polls 1.0\n" in (await ingress[1].get("/metrics")).content
    ingress[0].rows[(task["id"] or "").encode()]["state"] = "cancelled"
    response = await asyncio.wait_for(looking, 20)
    assert response.json()["status"] == "cancelled"
    assert response.headers["preference-applied"] == "wait=30"
    assert len(polls) == 0


async def test_looks_at_a_running_task_read_nothing_from_kafka(
    ingress: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await with_row(ingress, state="processing")

    async def read(*_: Any, **__: Any) -> None:
        raise AssertionError("a look-up")

    monkeypatch.setattr(ingress[0], "read", read)
    monkeypatch.setattr(ingress[0], "find", read)
    waits = waits_that_are_over(ingress, monkeypatch)
    await shown(ingress, task)
    await shown(ingress, task, prefer="wait=1")
    assert waits == [1]


async def test_all_whom_the_end_wakes_share_one_look_up(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, key = ingress[0], (task := await ended(ingress))["id"].encode()  # type: ignore[union-attr]
    row = memory.rows[key]
    memory.rows[key] = {**row, "state": "processing", "result_offset": None}
    held = [asyncio.create_task(shown(ingress, task, prefer="wait=60")) for _ in range(2)]
    await eventually_async(lambda: len(polls_of(ingress)) == 2, what="the held looks")
    reads = []
    read = memory.read

    async def counted(tp: Any, offset: int) -> Any:
        reads.append(offset)
        await eventually_async(lambda: len(polls_of(ingress)) == 0, what="both woken")
        return await read(tp, offset)

    monkeypatch.setattr(memory, "read", counted)
    memory.rows[key] = row
    found = await asyncio.wait_for(asyncio.gather(*held), 30)
    assert [one.json()["result"] for one in found] == [{"ok": True}] * 2
    assert len(reads) == 1


async def test_a_wait_that_is_over_shows_the_task_as_it_stands(
    ingress: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await with_row(ingress, state="processing")
    waits = waits_that_are_over(ingress, monkeypatch)
    response = await shown(ingress, task, prefer="wait=7")
    assert (response.json()["status"], response.headers["preference-applied"]) == ("processing", "wait=7")
    assert waits == [7]


async def test_a_task_that_has_ended_is_shown_at_once(ingress: Double) -> None:
    task = await ended(ingress)
    response = await asyncio.wait_for(shown(ingress, task, prefer="wait=60"), 30)
    assert response.headers["preference-applied"] == "wait=60"


async def test_a_shutdown_answers_those_who_wait(ingress: Double) -> None:
    task = await with_row(ingress, state="processing")
    looking = asyncio.create_task(shown(ingress, task, prefer="wait=60"))
    await eventually_async(lambda: len(polls_of(ingress)) == 1, what="the held look")
    ingress[0].ingress.waiters.shut_down()
    assert (await asyncio.wait_for(looking, 30)).json()["status"] == "processing"
    response = await asyncio.wait_for(shown(ingress, task, prefer="wait=60"), 30)
    assert "preference-applied" not in response.headers


async def test_beyond_the_limit_a_look_does_not_wait(ingress: Double) -> None:
    task = await with_row(ingress, state="processing")
    limit = ingress[0].settings.ingress.max_blocking_requests
    held = [asyncio.create_task(shown(ingress, task, prefer="wait=60")) for _ in range(limit)]
    await eventually_async(lambda: len(polls_of(ingress)) == limit, what="the held looks")
    response = await asyncio.wait_for(shown(ingress, task, prefer="wait=60"), 30)
    assert "preference-applied" not in response.headers
    ingress[0].ingress.waiters.shut_down()
    await asyncio.wait_for(asyncio.gather(*held), 30)


async def test_beyond_the_limit_of_its_key_a_look_does_not_wait(
    ingress: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await with_row(ingress, state="processing")
    parts = ingress[0].ingress
    caller = parts.keys.holder("hr-local", "read")._replace(limits=KeyQuota(concurrency=1))
    monkeypatch.setattr(parts.keys, "caller", lambda *_, **__: caller)
    held = asyncio.create_task(shown(ingress, task, prefer="wait=60"))
    await eventually_async(lambda: len(polls_of(ingress)) == 1, what="the held look")
    response = await asyncio.wait_for(shown(ingress, task, prefer="wait=60"), 30)
    assert "preference-applied" not in response.headers
    parts.waiters.shut_down()
    assert (await asyncio.wait_for(held, 30)).headers["preference-applied"] == "wait=60"


async def test_a_head_does_not_wait(ingress: Double) -> None:
    task = await with_row(ingress, state="processing")
    head = await asyncio.wait_for(ingress[1].head(f"/v1/tasks/{task['id']}", headers={"prefer": "wait=60"}), 30)
    assert head.status_code == 200
    assert "preference-applied" not in head.headers
