"""Events of tasks on real processes: streams outlive their ingress, and no byte is lost or comes twice."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from core.kafka.admin import admin
from schemas import ids, topics
from tests.support.two_ingresses import (
    DONE,
    Frame,
    Two,
    frames,
    put_body,
    read_all,
    read_to_the_end,
    read_until,
    text,
    two_ingresses,
    until_ready,
)

STRANGER = {"Authorization": "Bearer other"}


@pytest.fixture(scope="module")
async def two(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    async with two_ingresses(kafka, tmp_path_factory.mktemp("events")) as pair:
        yield pair


async def test_a_stream_outlives_its_ingress_that_was_killed(two: Two) -> None:
    """The client of a streaming call goes on at the other ingress, with the events of the task."""
    calls = [
        two.http.post(f"{two.urls[0]}/v1/queue/put", data=put_body("streaming", tokens=100, token_ms=50))
        for _ in range(4)
    ]
    answers = await asyncio.gather(*calls)
    task_ids = [answer.headers["x-task-id"] for answer in answers]
    had = [await read_until(answer, 5) for answer in answers]
    two.roles[0].kill()
    rest = await asyncio.gather(*(read_to_the_end(answer) for answer in answers))
    for answer in answers:
        answer.close()
    streamed = [frames(before + after) for before, after in zip(had, rest, strict=True)]

    async def whole(task_id: str) -> list[Frame]:
        async with two.events(1, task_id) as answer:
            return frames(await answer.read())

    async def remainder(task_id: str, count: int) -> list[Frame]:
        async with two.events(1, task_id, str(count)) as answer:
            return frames(await answer.read())

    everything, *remainders = await asyncio.gather(
        asyncio.gather(*map(whole, task_ids)),
        *(remainder(task_id, len(got)) for task_id, got in zip(task_ids, streamed, strict=True)),
    )
    for number, task_id in enumerate(task_ids):
        stored = await two.stored(1, task_id)
        assert text(everything[number]) == stored
        assert everything[number][-1].data == "[DONE]"
        chunks = [frame.data for frame in streamed[number]]
        assert 5 <= len(chunks) < len([frame for frame in everything[number] if frame.id])
        assert chunks + [frame.data for frame in remainders[number] if frame.id] == [
            frame.data for frame in everything[number] if frame.id
        ]
    await two.again(0)


async def test_a_view_goes_on_after_the_death_of_its_ingress(two: Two) -> None:
    async with two.http.post(
        f"{two.urls[1]}/v1/queue/put", data=put_body("streaming", tokens=100, token_ms=50)
    ) as call:
        task_id = call.headers["x-task-id"]
        async with two.events(0, task_id) as answer:
            raw = await read_until(answer, 7)
            two.roles[0].kill()
            before = frames(raw + await read_to_the_end(answer))
        last = [frame.id for frame in before if frame.id][-1]
        async with two.events(1, task_id, last) as answer:
            after = frames(await answer.read())
        assert (await call.read()).endswith(DONE)
    assert text(before + after) == await two.stored(1, task_id)
    ids = [frame.id for frame in before + after if frame.id]
    assert len(ids) == len(set(ids)) > 60
    await two.again(0)
    async with two.events(0, task_id) as answer:  # opened late, on a process that has seen none of it
        late = frames(await answer.read())
    assert [frame for frame in late if frame.id] == [frame for frame in before + after if frame.id]


async def test_a_planned_stop_says_so_and_the_stream_goes_on_elsewhere(two: Two) -> None:
    async with two.http.post(
        f"{two.urls[0]}/v1/queue/put", data=put_body("streaming", tokens=100, token_ms=50)
    ) as call:
        task_id = call.headers["x-task-id"]
        async with two.events(0, task_id) as answer:
            raw = await read_until(answer, 5)
            two.roles[0].send(signal.SIGTERM)
            before = frames(raw + await read_to_the_end(answer))
        assert b"server_shutdown" in await read_to_the_end(call)
    assert json.loads(before[-1].data)["error"]["code"] == "server_shutdown"
    async with two.events(1, task_id, [frame.id for frame in before if frame.id][-1]) as answer:
        after = frames(await answer.read())
    assert after[-1].data == "[DONE]"
    assert text(before + after) == await two.stored(1, task_id)
    assert two.roles[0].process is not None
    await asyncio.to_thread(two.roles[0].process.wait, 20)
    await two.again(0)


@pytest.mark.parametrize("level", [0, 1])
async def test_a_task_without_a_stream_tells_its_states_and_its_answer(two: Two, level: int) -> None:
    task_id = await two.submit(0, level=level, latency_ms=1500)
    for at in (1, 0):  # during the run, and after it
        async with two.events(at, task_id) as answer:
            found = frames(await answer.read())
        states = [json.loads(frame.data)["status"] for frame in found if frame.event == "status"]
        assert states[-1] == "completed"
        assert at == 0 or "processing" in states
        assert [frame.data for frame in found if not frame.event][1:] == ["[DONE]"]
        body = next(frame for frame in found if frame.id)
        assert json.loads(body.data)["object"] == "chat.completion"


async def test_only_the_owner_sees_it(two: Two) -> None:
    task_id = await two.submit(0)
    async with two.http.get(f"{two.urls[1]}/v1/tasks/{task_id}/events", headers=STRANGER) as answer:
        assert answer.status == 404


async def test_a_thousand_viewers_of_one_stream(two: Two) -> None:
    async with two.http.post(
        f"{two.urls[1]}/v1/queue/put", data=put_body("streaming", tokens=40, token_ms=100)
    ) as call:
        task_id = call.headers["x-task-id"]

        async def view() -> list[Frame]:
            async with two.events(0, task_id) as answer:
                return [frame for frame in frames(await answer.read()) if frame.id]

        seen = await asyncio.gather(*(view() for _ in range(1_000)))
        await call.read()
    stored = await two.stored(0, task_id)
    assert text(seen[0]) == stored
    assert all(view == seen[0] for view in seen)


async def test_a_viewer_that_stands_still_holds_up_nobody_and_misses_nothing(two: Two) -> None:
    """The text is far longer than what is kept for those who are behind: the slow one is given it from the log."""
    sim = {"tokens": 150, "token_ms": 40, "size": 9_000_000}
    async with two.http.post(f"{two.urls[1]}/v1/queue/put", data=put_body("streaming", **sim)) as call:
        task_id = call.headers["x-task-id"]
        host, port = two.urls[0].removeprefix("http://").split(":")
        slow = socket.create_connection((host, int(port)))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        slow.sendall(
            f"GET /v1/tasks/{task_id}/events HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer hr-local\r\n\r\n".encode()
        )
        quick = asyncio.create_task(read_all(two, task_id))
        running_text = await read_until(call, 120)
        reading = asyncio.create_task(asyncio.to_thread(drain, slow))  # the task still runs
        running_text += await call.read()
        assert running_text.endswith(DONE)
    stored = await two.stored(0, task_id)
    assert text(await quick) == stored
    head, _, body = (await reading).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert text(frames(body)) == stored


async def test_when_the_chunk_records_are_gone_the_text_comes_from_the_result(two: Two) -> None:
    async with two.http.post(
        f"{two.urls[0]}/v1/queue/put", data=put_body("streaming", tokens=100, token_ms=50)
    ) as call:
        task_id = call.headers["x-task-id"]
        seen = asyncio.create_task(read_all(two, task_id))
        await read_until(call, 10)
        chunks = TopicPartition(two.settings.topic(topics.CHUNKS), ids.parse(task_id).partition)
        async with admin(two.settings) as client:
            await client.delete_records({chunks: RecordsToDelete(before_offset=-1)})
        late = await read_all(two, task_id, at=1)  # it begins while the task runs
        await call.read()
    stored = await two.stored(0, task_id)
    assert text(late) == text(await seen) == stored
    assert [frame for frame in late if frame.id] == [frame for frame in await seen if frame.id]


def drain(connection: socket.socket) -> bytes:
    parts = []
    with connection:
        connection.settimeout(60)
        while data := connection.recv(262_144):
            parts.append(data)
    return b"".join(parts)


async def test_leaving_a_view_cancels_nothing(two: Two) -> None:
    task_id = await two.submit(0, latency_ms=1000)
    async with two.events(1, task_id) as answer:
        await answer.content.readany()
    assert (await two.stored(0, task_id))["object"] == "chat.completion"


async def test_a_client_that_was_cut_off_goes_on_when_it_gave_a_key(two: Two) -> None:
    """Without an Idempotency-Key its leaving would have cancelled the task."""
    body = put_body("streaming", tokens=100, token_ms=50)
    keyed = {"Idempotency-Key": f"cut-{time.time_ns()}"}
    async with two.http.post(f"{two.urls[0]}/v1/queue/put", data=body, headers=keyed) as call:
        task_id = call.headers["x-task-id"]
        before = frames(await read_until(call, 5))
        call.close()
    async with two.events(1, task_id, str(len(before))) as answer:
        after = frames(await answer.read())
    assert after[-1].data == "[DONE]"
    stored = await two.stored(1, task_id)
    assert "".join(f"data: {frame.data}\n\n" for frame in before) + text(after) == stored


async def test_a_lost_worker_ends_a_view_with_an_error(two: Two) -> None:
    async with two.http.post(
        f"{two.urls[1]}/v1/queue/put", data=put_body("streaming", tokens=150, token_ms=60)
    ) as call:
        task_id = call.headers["x-task-id"]
        async with two.events(0, task_id) as answer:
            raw = await read_until(answer, 30)  # beyond a commit tick: the claim says that tokens were delivered
            two.roles[-1].kill()
            seen = frames(raw + await answer.read())
        await call.read()
    two.roles[-1].start()
    assert [frame.data for frame in seen[-1:]] == ["[DONE]"]
    assert json.loads(seen[-2].data)["error"]["code"] == "worker_lost"
    assert json.loads(seen[-3].data)["status"] == "failed"
    chunks = [frame for frame in seen if frame.id]
    assert len(chunks) >= 30
    async with two.events(1, task_id, chunks[9].id) as answer:  # what had been delivered is still in the log
        late = frames(await answer.read())
    assert [frame for frame in late if frame.id] == chunks[10:]
    await until_ready(two.http, two.urls[0])
