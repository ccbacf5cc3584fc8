"""GET /v1/tasks/{task_id}/events, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ingress import sse
from ingress.task_events import hub
from ingress.task_events.position import Run
from schemas import ids, topics
from schemas.codec import RESULT
from schemas.records import Result, Task
from tests.support import records
from tests.support.answers import result_of
from tests.support.bella import BODY, PUT, Double, chunk, row_of
from tests.support.ingress import Memory
from tests.support.waiting import eventually_async

FRAMES = [b'{"n":1}', b'{"n": 2}', b'{"n":3,"text":"\xc3\xa9"}']
TEXT = sse.frames(FRAMES) + b"data: [DONE]\n\n"
TAG = Run(1, "w1").tag.encode()
KEEP_ALIVE = b": keep-alive\n\n"


class Story:
    """One task and what becomes of it."""

    def __init__(self, memory: Memory, client: httpx.AsyncClient, *, mode: str = "streaming") -> None:
        self.memory, self.client = memory, client
        owner = memory.services.keys.holder("hr-local", "read").owner
        self.id = records.task_id(mode=mode[0].upper())
        self.task: Task = records.task(id=self.id, mode=mode, owner=owner)
        self.path = f"/v1/tasks/{self.id}/events"

    def row(self, state: str = "processing", **changes: Any) -> None:
        self.memory.row(row_of(self.task, 0, state=state, worker="w1", started_ms=2_000, **changes))

    def chunk(self, seq: int, *frames: bytes, **changes: Any) -> None:
        self.memory.tell([chunk(self.task, seq, *(frames or FRAMES[seq : seq + 1]), **changes)])

    def end(self, row: dict[str, Any] | None = None, **changes: Any) -> None:
        streamed = (
            {"content_type": sse.MEDIA_TYPE, "body": TEXT, "chunks": 3} if self.task["mode"] == "streaming" else {}
        )
        result: Result = result_of(self.id, **{"mode": self.task["mode"]} | streamed | changes)
        offset = self.memory.arrive(topics.results(0), self.id, RESULT.encode(result))
        names = ("state", "status_code", "error_code", "error_message", "attempt", "worker")
        ended: dict[str, Any] = {name: result[name] for name in names}  # type: ignore[literal-required]
        self.memory.row(row_of(self.task, 0, **ended | {"result_offset": offset, "finished_ms": 3_000} | (row or {})))

    def open(self, **headers: str) -> asyncio.Task[bytes]:
        return asyncio.create_task(self._read(headers))

    async def _read(self, headers: dict[str, str]) -> bytes:
        response = await self.client.get(self.path, headers={"last-event-id": headers["last"]} if headers else {})
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == sse.MEDIA_TYPE
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-task-id"] == self.id
        return response.content.replace(KEEP_ALIVE, b"")

    async def opened(self, viewers: int = 1) -> None:
        def there() -> bool:
            follower = self.memory.services.waiters._followers.get(self.id.encode())
            return follower is not None and follower.ready and len(follower._viewers) == viewers

        await eventually_async(there, what="the viewers")


async def turns() -> None:
    """Let everybody do what there is to do: nothing here waits for a network."""
    for _ in range(20):
        await asyncio.sleep(0)


def status(story: Story, state: str, *, attempt: int = 1, progress: int = 0, more: str = "") -> bytes:
    task = ids.parse(story.id).task()
    told = f'{{"id":"{task}","status":"{state}","attempt":{attempt},"progress":{progress}{more}}}'
    return b"event: status\ndata: " + told.encode() + b"\n\n"


def frames(begin: int = 0, end: int = 3, *, tag: bytes = TAG) -> bytes:
    numbers = range(begin + 1, end + 1)
    return b"".join(b"id: %b-%d\n%b" % (tag, number, sse.frame(FRAMES[number - 1])) for number in numbers)


@pytest.fixture
def story(ingress: Double) -> Story:
    return Story(*ingress)


async def test_a_task_that_has_ended(story: Story) -> None:
    story.end()
    expected = frames() + status(story, "completed", progress=100) + b"data: [DONE]\n\n"
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
        status(story, "queued") + status(story, "processing") + frames() + status(story, "completed", progress=100)
        + b"data: [DONE]\n\n"
    )  # fmt: skip


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
        status(story, "queued") + status(story, "queued", attempt=2)
        + b"id: " + Run(2, "w1").tag.encode() + b'-1\ndata: {"ok":true}\n\n'
        + status(story, "completed", attempt=2, progress=100) + b"data: [DONE]\n\n"
    )  # fmt: skip


async def test_opened_in_the_middle_it_begins_with_the_first_chunk(story: Story) -> None:
    story.row()
    story.chunk(0)
    story.chunk(1)
    viewing = story.open()
    await story.opened()
    story.chunk(1)  # written twice
    story.chunk(2)
    story.end(body=None)
    assert await viewing == (
        status(story, "processing") + frames() + status(story, "completed", progress=100) + b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize("had", [0, 1, 2, 3])
@pytest.mark.parametrize("text", [TEXT, None], ids=["stored", "chunks"])
async def test_resumed_after_any_frame(story: Story, had: int, text: bytes | None) -> None:
    story.row()
    for seq in range(3):
        story.chunk(seq)
    story.end(body=text)
    last = f"{TAG.decode()}-{had}" if had else "0"
    expected = frames(had) + status(story, "completed", progress=100) + b"data: [DONE]\n\n"
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
    assert b"id:" not in got
    assert b'"code":"stream_interrupted"' in got
    assert got.endswith(b"data: [DONE]\n\n")


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
    between = Memory.between

    async def held(*arguments: Any) -> AsyncIterator[Any]:
        await go.wait()
        async for record in between(*arguments):
            yield record

    monkeypatch.setattr(Memory, "between", held)
    story.row()
    story.chunk(0, b"of a run that was lost", worker="w0")
    viewing = story.open()
    await eventually_async(lambda: story.memory.services.waiters._followers, what="the view")
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
        status(story, "queued") + b"id: " + TAG + b'-1\ndata: {"answer":\ndata: 42}\n\n'
        + status(story, "completed", progress=100) + b"data: [DONE]\n\n"
    )  # fmt: skip


async def test_a_body_that_is_no_text_is_left_to_get(ingress: Double) -> None:
    story = Story(*ingress, mode="blocking")
    story.end(body=b"\xff\xfb\x90", content_type="audio/mpeg")
    assert await story.open() == status(story, "completed", progress=100) + b"data: [DONE]\n\n"


async def test_a_failure(story: Story) -> None:
    story.row()
    story.chunk(0)
    story.end(state="failed", status_code=502, error_code="upstream_cut", error_message="cut", chunks=1, body=None)
    more = ',"error_code":"upstream_cut","error_message":"cut"'
    error = b'data: {"error":{"message":"cut","type":"server_error","param":null,"code":"upstream_cut"}}\n\n'
    expected = frames(0, 1) + status(story, "failed", more=more) + error + b"data: [DONE]\n\n"
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
    assert b"data: " + body.replace(b'"code":"m1","type":"invalid_request_error","param":"model"',
        b'"type":"invalid_request_error","param":"model","code":"m1"') in await story.open()  # fmt: skip


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
    assert got.endswith(b'"code":"cancelled"}}\n\ndata: [DONE]\n\n')


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


async def test_a_process_that_ends_says_so_and_does_not_say_done(story: Story) -> None:
    story.row()
    viewing = story.open()
    await story.opened()
    story.chunk(0)
    await turns()
    story.memory.services.waiters.shut_down()
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
    async with asyncio.timeout(20):
        answer = await story.client.head(story.path)
    assert (answer.status_code, answer.content, answer.headers["x-task-id"]) == (200, b"", story.id)


@pytest.mark.parametrize("last", ["x", "1-2", "-1", "1-0a1b2c3d-1-1", "99999999999"])
async def test_a_malformed_position(story: Story, last: str) -> None:
    story.end()
    by_header = await story.client.get(story.path, headers={"last-event-id": last})
    by_query = await story.client.get(story.path, params={"from": last})
    assert (by_header.status_code, by_query.status_code) == (400, 400)
    assert "Last-Event-ID" in by_header.text


async def test_many_viewers_share_one_reading(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.memory.services.waiters._limit = 1_000
    story.memory.settings.ingress.__dict__["max_waiting"] = 1_000
    passes = 0
    between = Memory.between

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        return between(*arguments)

    monkeypatch.setattr(Memory, "between", counted)
    story.row()
    story.chunk(0)
    viewing = [story.open() for _ in range(1_000)]
    await story.opened(1_000)
    story.chunk(1)
    story.chunk(2)
    story.end()
    expected = status(story, "processing") + frames() + status(story, "completed", progress=100) + b"data: [DONE]\n\n"
    assert set(await asyncio.gather(*viewing)) == {expected}
    assert passes == 1
    assert story.memory.services.waiters._followers == {}


async def test_more_viewers_than_there_is_room_for(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.row()
    viewing = [story.open() for _ in range(2)]
    await story.opened(2)
    refused = await story.client.get(story.path)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == str(hub.FULL_RETRY_S)
    story.end()
    await asyncio.gather(*viewing)
