"""Events of tasks through real processes: whoever looks, and however, misses no byte and gets none twice."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from core.kafka.admin import admin
from schemas import ids, topics
from tests.support.site import Site
from tests.support.task_events import DONE, EventReader, Frame, chunks, frames, read_until, text


@pytest.fixture(scope="module")
async def reader(site: Site) -> EventReader:
    return EventReader(site, "events")


@pytest.mark.parametrize("level", [0, 1])
async def test_a_task_without_a_stream_tells_its_states_and_its_answer(reader: EventReader, level: int) -> None:
    task_id = await reader.submit(level=level, latency_ms=1500)
    for at in (1, 0):  # during the run, and after it
        found = await reader.read(task_id, at=at)
        states = [json.loads(frame.data)["status"] for frame in found if frame.event == "status"]
        assert states[-1] == "completed"
        assert at == 0 or "processing" in states
        assert [frame.data for frame in found if not frame.event][1:] == ["[DONE]"]
        body = next(frame for frame in found if frame.id)
        async with reader.events(task_id, at=at, after=found[-1].id) as again:
            assert (again.status, await again.read()) == (204, b"")
        assert json.loads(body.data)["object"] == "chat.completion"


async def test_only_the_owner_sees_it(site: Site, reader: EventReader) -> None:
    task_id = await reader.submit()
    async with EventReader(site, "strangers").events(task_id, at=1) as answer:
        assert answer.status == 404


async def test_a_thousand_viewers_of_one_stream(reader: EventReader) -> None:
    async with reader.stream(at=1, tokens=40, token_ms=100) as call:
        task_id = call.headers["x-task-id"]
        seen = await asyncio.gather(*(reader.read(task_id, at=0) for _ in range(1_000)))
        await call.read()
    assert text(seen[0]) == await reader.stored(task_id, at=0)
    assert all(chunks(view) == chunks(seen[0]) for view in seen)


async def test_a_slow_viewer_delays_no_other_and_misses_nothing(site: Site, reader: EventReader) -> None:
    """The text is far longer than what is kept for those who are behind: the slow one is given it from the log."""
    async with reader.stream(at=1, tokens=150, token_ms=40, size=9_000_000) as call:
        task_id = call.headers["x-task-id"]
        host, port = site.urls[0].removeprefix("http://").split(":")
        slow = socket.create_connection((host, int(port)))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        authorization = f"Authorization: {reader.headers['Authorization']}"
        slow.sendall(f"GET /v1/tasks/{task_id}/events HTTP/1.0\r\nHost: x\r\n{authorization}\r\n\r\n".encode())
        quick = asyncio.create_task(reader.read(task_id, at=0))
        running_text = await read_until(call, 120)
        reading = asyncio.create_task(asyncio.to_thread(drain, slow))  # the task still runs
        running_text += await call.read()
        assert running_text.endswith(DONE)
    stored = await reader.stored(task_id, at=0)
    assert text(await quick) == stored
    head, _, body = (await reading).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert text(frames(body)) == stored


def drain(connection: socket.socket) -> bytes:
    parts = []
    with connection:
        connection.settimeout(60)
        while data := connection.recv(262_144):
            parts.append(data)
    return b"".join(parts)


async def test_when_the_chunk_records_are_gone_the_text_comes_from_the_result(site: Site, reader: EventReader) -> None:
    async with reader.stream(at=0, tokens=100, token_ms=50) as call:
        task_id = call.headers["x-task-id"]
        seen = asyncio.create_task(reader.read(task_id, at=0))
        await read_until(call, 10)
        home = TopicPartition(site.settings.topic(topics.CHUNKS), ids.parse(task_id).partition)
        async with admin(site.settings) as client:
            await client.delete_records({home: RecordsToDelete(before_offset=-1)})
        late = await reader.read(task_id, at=1)  # it begins while the task runs
        await call.read()
    assert text(late) == text(await seen) == await reader.stored(task_id, at=0)
    assert chunks(late) == chunks(await seen)


async def test_leaving_a_view_cancels_nothing(reader: EventReader) -> None:
    task_id = await reader.submit(latency_ms=1000)
    async with reader.events(task_id, at=1) as answer:
        await answer.content.readany()
    assert (await reader.stored(task_id, at=0))["object"] == "chat.completion"


async def test_a_client_that_was_cut_off_goes_on_when_it_gave_a_key(reader: EventReader) -> None:
    """Without an Idempotency-Key its leaving would have cancelled the task."""
    async with reader.stream(at=0, key="cut", tokens=100, token_ms=30) as call:
        task_id = call.headers["x-task-id"]
        before: list[Frame] = frames(await read_until(call, 5))
        call.close()
    after = await reader.read(task_id, at=1, after=str(len(before)))
    assert after[-1].data == "[DONE]"
    stored = await reader.stored(task_id, at=1)
    assert "".join(f"data: {frame.data}\n\n" for frame in before) + text(after) == stored
