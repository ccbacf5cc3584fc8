"""GET /v1/tasks/{task_id}/events, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ingress.http import sse
from ingress.task_events.transcript import Run
from schemas import ids
from tests.support.bella import BODY, PUT, Double
from tests.support.memory_ingress import Memory
from tests.support.task_frames import DONE, FRAMES, TAG, TEXT, Story, frames, status
from tests.support.waiting import eventually_async, turns


async def test_a_task_that_has_ended(story: Story) -> None:
    story.end()
    expected = frames() + status(story, "completed", progress=100) + DONE
    assert await story.open() == expected
    assert expected.startswith(b'id: 1-2f8aa4a1-1\ndata: {"n":1}\n\nid: ')


async def test_from_the_first_moment_to_the_last(story: Story) -> None:
    story.row("queued")
    viewing = story.open()
    await story.opened()
    story.row("processing")
    story.chunk(0)
    await turns()
    story.row("processing", progress=40)
    story.chunk(1, *FRAMES[1:])
    story.end()
    got = await viewing
    task = ids.parse(story.id).task().encode()
    progress = b'event: progress\ndata: {"id":"' + task + b'","progress":40}\n\n'
    assert got.count(progress) == 1
    told = got.replace(progress, b"")
    assert told == (
        status(story, "queued")
        + status(story, "processing")
        + frames()
        + status(story, "completed", progress=100)
        + DONE
    )


async def test_a_status_comes_again_with_a_new_attempt_only(story: Story) -> None:
    story.row("processing")
    viewing = story.open()
    await story.opened()
    for changes in ({}, {"streamed": True}, {"lease_until_ms": 9_000}, {"lost_workers": 1}, {"updated_ms": 8}):
        story.row("processing", **changes)
        await turns()
    story.row("processing", attempt=2)
    story.row("processing", attempt=2, streamed=True)
    story.end(state="cancelled", status_code=499, error_code="cancelled", error_message="x", attempt=2, body=None)
    got = await viewing
    more = ',"error_code":"cancelled","error_message":"x"'
    told = status(story, "processing"), status(story, "processing", attempt=2)
    assert got.startswith(b"".join(told) + status(story, "cancelled", attempt=2, more=more))


async def test_a_task_that_no_scheduler_has_seen_yet_waits(ingress: Double) -> None:
    memory, client = ingress
    accepted = [await client.post(PUT, json=BODY) for _ in range(memory.settings.kafka.partitions)]
    put = [answer.headers["x-task-id"] for answer in accepted]
    story = Story(memory, client, mode="callback")
    story.id = story.task["id"] = next(one for one in put if ids.parse(one).partition == 0)
    story.path = f"/v1/tasks/{story.id}/events"
    viewing = story.open()
    await story.opened()
    story.row("queued")  # nothing new
    story.row("queued", attempt=2)
    story.end(attempt=2)
    assert await viewing == (
        status(story, "queued")
        + status(story, "queued", attempt=2)
        + b"id: "
        + Run(2, "w1").tag.encode()
        + b'-1\ndata: {"ok":true}\n\n'
        + status(story, "completed", attempt=2, progress=100)
        + DONE
    )


async def test_opened_in_the_middle_it_begins_with_the_first_chunk(story: Story) -> None:
    story.row()
    story.chunk(0)
    story.chunk(1)
    viewing = story.open()
    await story.opened()
    story.chunk(1)  # written twice
    story.chunk(2)
    story.end(body=None)
    assert await viewing == (status(story, "processing") + frames() + status(story, "completed", progress=100) + DONE)


@pytest.mark.parametrize("had", [0, 1, 2, 3])
@pytest.mark.parametrize("text", [TEXT, None], ids=["stored", "chunks"])
async def test_resumed_after_any_frame(story: Story, had: int, text: bytes | None) -> None:
    story.row()
    for seq in range(3):
        story.chunk(seq)
    story.end(body=text)
    last = f"{TAG.decode()}-{had}" if had else "0"
    expected = frames(had) + status(story, "completed", progress=100) + DONE
    assert await story.open(last=last) == expected
    story.path += f"?from={last}"
    assert await story.open() == expected


async def test_a_client_that_counted_frames_itself(story: Story) -> None:
    story.end()
    assert (await story.open(last="2")).startswith(frames(2) + b"event: status")


async def test_a_gap_is_filled_from_the_result(story: Story) -> None:
    story.row()
    viewing = story.open()
    await story.opened()
    story.chunk(0)
    story.chunk(2)
    story.end()
    assert frames() in await viewing


async def test_the_id_of_another_run_gets_no_text(story: Story) -> None:
    story.end()
    got = await story.open(last="1-00000000-1")
    assert b"id:" not in got.removesuffix(DONE)
    assert b'"code":"stream_interrupted"' in got
    assert got.endswith(DONE)


async def test_a_second_run_does_not_end_a_view_that_the_outcome_may_still_confirm(story: Story) -> None:
    story.row()
    viewing = story.open()
    await story.opened()
    story.chunk(0)
    await turns()
    story.chunk(0, b"other", worker="w2")
    await turns()
    story.end()
    got = await viewing
    assert b"other" not in got
    assert frames() in got


async def test_what_happens_while_the_past_is_read_comes_after_it(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()
    read_range = Memory.read_range

    async def held(*arguments: Any) -> AsyncIterator[Any]:
        await go.wait()
        async for record in read_range(*arguments):
            yield record

    monkeypatch.setattr(Memory, "read_range", held)
    story.row()
    story.chunk(0, b"of a run that was lost", worker="w0")
    viewing = story.open()
    await eventually_async(lambda: story.memory.ingress.waiters._followers, what="the view")
    await turns()
    for seq in range(3):
        story.chunk(seq)
    go.set()
    await story.opened()
    await turns()
    story.row(progress=99)  # by now the frames have been sent: they came from the chunks
    story.end()
    got = await viewing
    assert b"w0" not in got
    assert b"lost" not in got
    assert got.index(frames()) < got.index(b"event: progress")


@pytest.mark.parametrize("mode", ["blocking", "callback"])
async def test_a_task_that_does_not_stream_gives_its_answer_as_one_frame(ingress: Double, mode: str) -> None:
    story = Story(*ingress, mode=mode)
    story.row("queued")
    viewing = story.open()
    await story.opened()
    story.end(body=b'{"answer":\n42}')
    assert await viewing == (
        status(story, "queued")
        + b"id: "
        + TAG
        + b'-1\ndata: {"answer": 42}\n\n'
        + status(story, "completed", progress=100)
        + DONE
    )


async def test_a_body_that_is_no_text_is_base64_with_its_media_type(ingress: Double) -> None:
    story = Story(*ingress, mode="blocking")
    story.end(body=b"\xff\xfb\x90", content_type="audio/mpeg")
    shown = b'{"result":"//uQ","result_content_type":"audio/mpeg","result_encoding":"base64"}'
    assert await story.open() == (
        b"id: " + TAG + b"-1\ndata: " + shown + b"\n\n" + status(story, "completed", progress=100) + DONE
    )


async def test_a_failure(story: Story) -> None:
    story.row()
    story.chunk(0)
    story.end(state="failed", status_code=502, error_code="upstream_cut", error_message="cut", chunks=1, body=None)
    more = ',"error_code":"upstream_cut","error_message":"cut"'
    error = b'data: {"error":{"message":"cut","type":"server_error","param":null,"code":"upstream_cut"}}\n\n'
    expected = frames(0, 1) + status(story, "failed", more=more) + error + DONE
    assert await story.open() == expected


async def test_an_error_that_the_upstream_told_is_not_told_again(story: Story) -> None:
    told = b'{"error":{"message":"overloaded"}}'
    body = sse.frames([*FRAMES[:1], told])
    story.end(state="failed", status_code=502, error_code="upstream_error", error_message="x", chunks=2, body=body)
    got = await story.open()
    assert got.startswith(frames(0, 1) + b"id: " + TAG + b"-2\ndata: " + told + b"\n\nevent: status\n")
    assert got.count(b'"error":') == 1
    assert (await story.open(last=f"{TAG.decode()}-2")).count(b'"error":') == 0


async def test_an_upstreams_refusal_is_passed_on(ingress: Double) -> None:
    story = Story(*ingress, mode="blocking")
    body = b'{"error":{"message":"no such model","code":"m1","type":"invalid_request_error","param":"model"}}'
    story.end(state="failed", status_code=404, error_code="upstream_error", error_message="m", body=body)
    assert (
        b"data: "
        + body.replace(
            b'"code":"m1","type":"invalid_request_error","param":"model"',
            b'"type":"invalid_request_error","param":"model","code":"m1"',
        )
        in await story.open()
    )


async def test_a_cancelled_task(story: Story) -> None:
    story.row()
    viewing = story.open()
    await story.opened()
    story.chunk(0)
    gone = {"state": "cancelled", "status_code": 499, "error_code": "cancelled", "error_message": "on request"}
    story.end(**gone, chunks=0, body=None, content_type="application/json")
    got = await viewing
    assert frames(0, 1) in got
    assert b'"status":"cancelled"' in got
    assert got.endswith(b'"code":"cancelled"}}\n\n' + DONE)


async def test_an_expired_task(story: Story) -> None:
    story.row("expired", finished_ms=3_000)
    got = await story.open()
    assert got.startswith(status(story, "expired"))
    assert b'"code":"expired"' in got


async def test_a_text_that_is_not_kept_any_more_is_not_called_whole(story: Story) -> None:
    story.row()
    story.end(body=None)
    got = await story.open()
    assert b'"code":"text_lost"' in got
