"""Who may look at a task's events, from where, and how many at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingress.task_events import stream
from schemas import ids
from tests.support import records
from tests.support.bella import Double
from tests.support.memory_ingress import Memory
from tests.support.task_frames import DONE, Story, frames, status
from tests.support.waiting import turns


async def test_a_process_that_ends_says_so_and_does_not_say_done(story: Story) -> None:
    story.row()
    viewing = story.open()
    await story.opened()
    story.chunk(0)
    await turns()
    story.memory.ingress.waiters.shut_down()
    got = await viewing
    assert got.startswith(status(story, "processing") + frames(0, 1) + b'data: {"error":')
    assert got.endswith(b'"code":"server_shutdown"}}\n\n')
    assert (await story.client.get(story.path)).status_code == 503


async def test_any_rendering_of_the_id_and_no_other_owner(story: Story) -> None:
    story.end()
    task_id = ids.parse(story.id)
    for text in (task_id.task(), task_id.uuid(), task_id.batch_request()):
        assert (await story.client.get(f"/v1/tasks/{text}/events")).headers["x-task-id"] == story.id
    story.row(owner="somebody")
    unknown = records.task_id(mode="S")
    for path in (story.path, f"/v1/tasks/{unknown}/events", "/v1/tasks/nonsense/events"):
        assert (await story.client.get(path)).status_code == 404
    assert (await story.client.get(story.path, headers={"authorization": "Bearer no"})).status_code == 401


async def test_a_request_for_the_head_alone_does_not_wait(story: Story) -> None:
    story.row()
    async with asyncio.timeout(60):
        answer = await story.client.head(story.path)
    assert (answer.status_code, answer.content, answer.headers["x-task-id"]) == (200, b"", story.id)


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_who_was_told_the_end_is_not_told_it_again(ingress: Double, mode: str, state: str) -> None:
    """A browser's EventSource comes again whenever a stream ends, until it gets a 204."""
    story = Story(*ingress, mode=mode)
    story.end(**{} if state == "completed" else {"state": state, "error_code": "x", "status_code": 500, "body": None})
    told = await story.open()
    last = [line for line in told.split(b"\n") if line.startswith(b"id: ")][-1].removeprefix(b"id: ").decode()
    for again in ({"headers": {"last-event-id": last}}, {"params": {"from": last}}):
        answer = await story.client.get(story.path, **again)  # type: ignore[arg-type]
        assert (answer.status_code, answer.content, answer.headers["x-task-id"]) == (204, b"", story.id)
    strange = await story.client.get("/v1/tasks/nonsense/events", headers={"last-event-id": last})
    assert strange.status_code == 404


@pytest.mark.parametrize("last", ["x", "1-2", "-1", "1-0a1b2c3d-1-1", "99999999999"])
async def test_a_malformed_position(story: Story, last: str) -> None:
    story.end()
    by_header = await story.client.get(story.path, headers={"last-event-id": last})
    by_query = await story.client.get(story.path, params={"from": last})
    assert (by_header.status_code, by_query.status_code) == (400, 400)
    assert "Last-Event-ID" in by_header.text


@pytest.mark.parametrize(("query", "field"), [("x=1", "x"), ("from=1&from=2", "from"), ("from=1&From=1", "From")])
async def test_a_query_that_would_be_ignored_is_refused(story: Story, query: str, field: str) -> None:
    story.end()
    for headers in ({}, {"last-event-id": "1"}):
        refused = await story.client.get(f"{story.path}?{query}", headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
    assert (await story.client.get(f"{story.path}?from=1")).status_code == 200


async def test_many_viewers_share_one_reading(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.memory.ingress.waiters._limit = 1_000
    story.memory.connected.task_events._limit = 1_000
    passes = 0
    read_range = Memory.read_range

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        return read_range(*arguments)

    monkeypatch.setattr(Memory, "read_range", counted)
    story.row()
    story.chunk(0)
    viewing = [story.open() for _ in range(1_000)]
    await story.opened(1_000)
    story.chunk(1)
    story.chunk(2)
    story.end()
    expected = status(story, "processing") + frames() + status(story, "completed", progress=100) + DONE
    assert set(await asyncio.gather(*viewing)) == {expected}
    assert passes == 1
    assert story.memory.ingress.waiters._followers == {}


async def test_more_viewers_than_there_is_room_for(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.row()
    viewing = [story.open() for _ in range(2)]
    await story.opened(2)
    refused = await story.client.get(story.path)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == str(stream.FULL_RETRY_S)
    story.end()
    await asyncio.gather(*viewing)
