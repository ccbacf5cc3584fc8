"""Streams outlive the process that they came through, and no byte of them is lost or comes twice."""

from __future__ import annotations

import asyncio
import json
import signal

from tests.support.site import Site
from tests.support.task_events import DONE, EventReader, chunks, frames, read_to_the_end, read_until, text

LONG = {"tokens": 100, "token_ms": 30}


async def test_a_stream_outlives_its_ingress_that_was_killed(site: Site) -> None:
    """The client of a streaming call goes on at the other ingress, with the events of the task."""
    reader = EventReader(site, "events")
    answers = await asyncio.gather(*(reader.stream(at=0, **LONG) for _ in range(4)))
    task_ids = [answer.headers["x-task-id"] for answer in answers]
    had = [await read_until(answer, 5) for answer in answers]
    site.roles["ingress-0"].kill()
    rest = await asyncio.gather(*(read_to_the_end(answer) for answer in answers))
    for answer in answers:
        answer.close()
    streamed = [frames(before + after) for before, after in zip(had, rest, strict=True)]
    site.roles["ingress-0"].start()
    everything, *remainders = await asyncio.gather(
        asyncio.gather(*(reader.read(task_id, at=1) for task_id in task_ids)),
        *(reader.read(task_id, at=1, after=str(len(got))) for task_id, got in zip(task_ids, streamed, strict=True)),
    )
    for number, task_id in enumerate(task_ids):
        assert text(everything[number]) == await reader.stored(task_id, at=1)
        assert everything[number][-1].data == "[DONE]"
        got = [frame.data for frame in streamed[number]]
        whole = [frame.data for frame in chunks(everything[number])]
        assert 5 <= len(got) < len(whole)
        assert got + [frame.data for frame in chunks(remainders[number])] == whole
    await site.ready()


async def test_a_view_goes_on_after_the_death_of_its_ingress(site: Site) -> None:
    reader = EventReader(site, "events")
    async with reader.stream(at=1, **LONG) as call:
        task_id = call.headers["x-task-id"]
        async with reader.events(task_id, at=0) as answer:
            raw = await read_until(answer, 7)
            site.roles["ingress-0"].kill()
            before = frames(raw + await read_to_the_end(answer))
        site.roles["ingress-0"].start()
        after = await reader.read(task_id, at=1, after=chunks(before)[-1].id)
        assert (await call.read()).endswith(DONE)
    assert text(before + after) == await reader.stored(task_id, at=1)
    ids = [frame.id for frame in chunks(before + after)]
    assert len(ids) == len(set(ids)) > 60
    await site.ready()
    late = await reader.read(task_id, at=0)  # opened late, on a process that has seen none of it
    assert chunks(late) == chunks(before + after)


async def test_a_planned_stop_says_so_and_the_stream_goes_on_elsewhere(site: Site) -> None:
    reader = EventReader(site, "events")
    async with reader.stream(at=0, **LONG) as call:
        task_id = call.headers["x-task-id"]
        async with reader.events(task_id, at=0) as answer:
            raw = await read_until(answer, 5)
            site.roles["ingress-0"].send(signal.SIGTERM)
            before = frames(raw + await read_to_the_end(answer))
        assert b"server_shutdown" in await read_to_the_end(call)
    assert json.loads(before[-1].data)["error"]["code"] == "server_shutdown"
    after = await reader.read(task_id, at=1, after=chunks(before)[-1].id)
    assert after[-1].data == "[DONE]"
    assert text(before + after) == await reader.stored(task_id, at=1)
    await site.stop("ingress-0")
    site.roles["ingress-0"].start()
    await site.ready()


async def test_a_lost_worker_ends_a_view_with_an_error(site: Site) -> None:
    reader = EventReader(site, "events")
    async with reader.stream(at=1, tokens=150, token_ms=60) as call:
        task_id = call.headers["x-task-id"]
        async with reader.events(task_id, at=0) as answer:
            raw = await read_until(answer, 30)  # beyond a commit tick: the claim says that tokens were delivered
            site.roles["dispatcher"].kill()
            seen = frames(raw + await answer.read())
        await call.read()
    site.roles["dispatcher"].start()
    assert [frame.data for frame in seen[-1:]] == ["[DONE]"]
    assert json.loads(seen[-2].data)["error"]["code"] == "worker_lost"
    assert json.loads(seen[-3].data)["status"] == "failed"
    delivered = chunks(seen)
    assert len(delivered) >= 30
    late = await reader.read(task_id, at=1, after=delivered[9].id)  # what had been delivered is still in the log
    assert chunks(late) == delivered[10:]
    await site.ready()
