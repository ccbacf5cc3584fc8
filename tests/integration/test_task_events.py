"""Events of tasks on real processes: streams outlive their ingress, and no byte is lost or comes twice."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from bench.simulator import Simulator
from core.kafka.admin import admin, apply_topics
from core.settings import Settings
from schemas import ids, topics
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for

HEADERS = {"Authorization": "Bearer hr-local"}
STRANGER = {"Authorization": "Bearer other"}
DONE = b"data: [DONE]\n\n"
COMMENT = re.compile(rb"^:.*\n\n", re.MULTILINE)
PATIENT = aiohttp.ClientTimeout(total=120)


class Frame(NamedTuple):
    """One frame of the events."""

    event: str
    id: str
    data: str


class Two:
    """Two ingresses before the same Kafka."""

    def __init__(self, urls: list[str], roles: list[Role], settings: Settings, http: aiohttp.ClientSession) -> None:
        self.urls, self.roles, self.settings, self.http = urls, roles, settings, http

    async def submit(self, at: int, *, mode: str = "callback", level: int = 0, **sim: object) -> str:
        """Put a task that nobody waits for."""
        async with self.http.post(f"{self.urls[at]}/v1/queue/put", data=put_body(mode, level, **sim)) as answer:
            assert answer.status == 200
            return answer.headers["x-task-id"]

    def events(self, at: int, task_id: str, last: str | None = None) -> Any:
        """Open the events of a task."""
        headers = {"Last-Event-ID": last} if last is not None else {}
        return self.http.get(f"{self.urls[at]}/v1/tasks/{task_id}/events", headers=headers)

    async def stored(self, at: int, task_id: str) -> Any:
        """Return the stored result of a task that has ended."""
        give_up = time.monotonic() + 60
        while True:
            async with self.http.get(f"{self.urls[at]}/v1/queue/{task_id}") as answer:
                found = await answer.json()
            if found["status"] in ("succeeded", "failed"):
                return found["result"]["body"]
            assert time.monotonic() < give_up, found
            await asyncio.sleep(0.1)

    async def again(self, at: int) -> None:
        """Start an ingress anew."""
        self.roles[at].start()
        await until_ready(self.http, self.urls[at])


@pytest.fixture(scope="module")
async def two(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    folder = tmp_path_factory.mktemp("events")
    async with (
        Simulator() as simulator,
        aiohttp.ClientSession(headers=HEADERS, timeout=PATIENT, connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        settings, env = settings_for(
            kafka, folder, f"events-{time.time_ns()}.", upstream__urls=[simulator.url], ingress__keep_alive_s=0.5,
            auth__api_keys=["hr-local", "other"], kafka__partitions=2, streams__lease_s=3, dispatcher__heartbeat_s=0.5,
        )  # fmt: skip
        await apply_topics(settings)
        ports = [free_port(), free_port()]
        commands = [
            *(("ingress", "--port", str(port)) for port in ports),
            ("streams", "--level", "online"), ("streams", "--level", "offline"), ("dispatcher",),
        ]  # fmt: skip
        with ExitStack() as stack:
            roles = [
                stack.enter_context(running(*arguments, env=env, log=folder / f"{number}.log"))
                for number, arguments in enumerate(commands)
            ]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                await until_ready(http, url)
            yield Two(urls, roles, settings, http)


async def until_ready(http: aiohttp.ClientSession, url: str) -> None:
    give_up = time.monotonic() + 90
    while True:
        try:
            async with http.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
                said = await answer.text()
        except aiohttp.ClientError as error:
            said = str(error)
        assert time.monotonic() < give_up, said
        await asyncio.sleep(0.1)


def put_body(mode: str, level: int = 0, **sim: object) -> bytes:
    data = {"model": "sim", "messages": [{"role": "user", "content": "q"}], "sim": sim}
    put = {"queue": "events", "endpoint": "/v1/chat/completions", "response_mode": mode, "level": level, "data": data}
    return json.dumps(put).encode()


def frames(raw: bytes) -> list[Frame]:
    """Read whole frames; what a cut left of one is thrown away, as an event source does."""
    whole = COMMENT.sub(b"", raw[: raw.rfind(b"\n\n") + 2])
    found = []
    for block in whole.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        found.append(Frame(fields.get("event", ""), fields.get("id", ""), fields["data"]))
    return found


def text(found: list[Frame]) -> str:
    """Put the chunks together to what the upstream sent."""
    return "".join(f"data: {frame.data}\n\n" for frame in found if frame.id) + DONE.decode()


async def read_until(answer: aiohttp.ClientResponse, wanted: int) -> bytes:
    """Read until some of the upstream's frames have come."""
    raw = b""
    while raw.count(b'data: {"id":"chatcmpl-') < wanted:
        raw += await answer.content.readany()
    return raw


async def read_to_the_end(answer: aiohttp.ClientResponse) -> bytes:
    """Read until the end or the loss of the connection."""
    raw = b""
    try:
        async for data in answer.content.iter_any():
            raw += data
    except aiohttp.ClientError:
        pass
    return raw


async def test_a_stream_outlives_its_ingress_that_was_killed(two: Two) -> None:
    """The client of a streaming call goes on at the other ingress, with the events of the task."""
    calls = [
        two.http.post(f"{two.urls[0]}/v1/queue/put", data=put_body("streaming", tokens=60, token_ms=50))
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
        assert 5 <= len(chunks) < 60
        assert chunks + [frame.data for frame in remainders[number] if frame.id] == [
            frame.data for frame in everything[number] if frame.id
        ]
    await two.again(0)


async def test_a_view_goes_on_after_the_death_of_its_ingress(two: Two) -> None:
    async with two.http.post(f"{two.urls[1]}/v1/queue/put", data=put_body("streaming", tokens=60, token_ms=50)) as call:
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
    async with two.http.post(f"{two.urls[0]}/v1/queue/put", data=put_body("streaming", tokens=60, token_ms=50)) as call:
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
    async with two.http.post(f"{two.urls[0]}/v1/queue/put", data=put_body("streaming", tokens=60, token_ms=50)) as call:
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


async def read_all(two: Two, task_id: str, *, at: int = 0) -> list[Frame]:
    async with two.events(at, task_id) as answer:
        return frames(await answer.read())


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
    body = put_body("streaming", tokens=60, token_ms=50)
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
        f"{two.urls[1]}/v1/queue/put", data=put_body("streaming", tokens=100, token_ms=60)
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
