"""The ingress on a real broker; the tests play scheduler and worker."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from core.settings.models import Settings
from core.storage.blobs import open_blobs
from ingress.read_model import task_lookup
from ingress.waiting import streaming
from schemas import ids, topics
from tests.support.bella import BODY, PUT
from tests.support.ingress_backend import IngressBackend, ingress_backend, ingress_running
from tests.support.kafka import patient_lookups
from tests.support.ports import free_port
from tests.support.roles import settings_for
from tests.support.waiting import eventually_async, until

Stage = tuple[IngressBackend, httpx.AsyncClient]
KEEP_ALIVE = b": keep-alive\n"


@pytest.fixture(scope="module")
async def shared(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    settings, _ = settings_for(
        kafka,
        tmp_path_factory.mktemp("ingress"),
        f"ing-{time.time_ns()}.",
        ingress__port=free_port(),
        ingress__keep_alive_s=0.3,
        kafka__partitions=3,
    )
    async with ingress_backend(settings) as behind, ingress_running(settings) as client:
        with patient_lookups():
            yield behind, client


def another(behind: IngressBackend, **changes: object) -> Settings:
    """Return the settings of a further ingress on the same topics."""
    server = behind.settings.ingress.model_copy(update={"port": free_port()})
    return behind.settings.model_copy(update={"ingress": server, **changes})


@pytest.fixture
async def stage(shared: Stage) -> Stage:
    await shared[0].begin()
    return shared


async def test_callback_is_durable_when_it_is_answered(stage: Stage) -> None:
    behind, client = stage
    answers = await asyncio.gather(*(client.post(PUT, json=BODY | {"level": n % 2}) for n in range(40)))
    accepted = {answer.json()["data"] for answer in answers}
    assert len(accepted) == 40
    await eventually_async(lambda: behind.tasks.keys() >= accepted, what="all tasks in Kafka")
    assert {ids.parse(one).partition for one in accepted} == {0, 1, 2}
    assert {(ids.parse(one).level, behind.tasks[one]["level"]) for one in accepted} == {(0, 0), (1, 1)}


async def test_blocking(stage: Stage) -> None:
    behind, client = stage
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "blocking"}))
    task = await behind.task()
    await behind.end(task, status_code=201, body=b'{"x":1}')
    response = await asking
    assert (response.status_code, response.content) == (201, b'{"x":1}')
    assert response.headers["x-task-id"] == task["id"]


async def test_many_wait_at_once_and_each_gets_its_own(stage: Stage) -> None:
    behind, client = stage
    bodies = [BODY | {"response_mode": "blocking", "trace_id": str(n)} for n in range(60)]
    asking = [asyncio.create_task(client.post(PUT, json=body)) for body in bodies]
    await behind.task(59)
    for task in list(behind.tasks.values()):
        await behind.end(task, body=json.dumps(task["trace_id"]).encode())
    assert [(await one).json() for one in asking] == [str(n) for n in range(60)]


async def test_a_result_in_the_object_store(stage: Stage) -> None:
    behind, client = stage
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "blocking"}))
    task = await behind.task()
    big = json.dumps("x" * 400_000).encode()
    ref = await open_blobs(behind.settings).put(big, name=f"results/{task['id']}", media_type="application/json")
    await behind.end(task, body=None, body_ref=ref)
    assert (await asking).content == big
    assert (await client.get(f"/v1/queue/{task['id']}")).json()["result"]["body"] == "x" * 400_000


async def test_a_client_that_goes_away_cancels_its_blocking_task(stage: Stage) -> None:
    behind, client = stage
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "blocking"}))
    task = await behind.task()
    asking.cancel()
    event = await behind.cancelled(task)
    assert (event["kind"], event["reason"], event["owner"]) == ("cancel", "the client went away", task["owner"])


async def test_streaming_frame_by_frame(stage: Stage) -> None:
    behind, client = stage
    async with client.stream("POST", PUT, json=BODY | {"response_mode": "streaming"}) as response:
        task = await behind.task()
        assert response.status_code == 200
        parts = response.aiter_raw()
        await behind.chunk(task, 0, b'{"n":0}')
        got = b""
        while b"data" not in got:
            got += await anext(parts)
        assert got.replace(KEEP_ALIVE, b"") == b'data: {"n":0}\n\n'
        assert (await anext(parts)).startswith(KEEP_ALIVE)
        await behind.chunk(task, 1, b'{"n":1}', b'{"n":2}')
        await behind.end(task, chunks=2, content_type="text/event-stream", body=b"")
        rest = b"".join([part async for part in parts]).replace(KEEP_ALIVE, b"")
        assert rest == b'data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n'


async def test_an_outcome_without_its_chunks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.Stream.__init__, "__kwdefaults__", {"buffer_bytes": 1000, "settle_s": 0.1})
    behind, client = stage
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "streaming"}))
    task = await behind.task()
    text = b'data: {"n":0}\n\ndata: {"n":1}\n\ndata: [DONE]\n\n'
    await behind.end(task, chunks=2, content_type="text/event-stream", body=text)
    assert (await asking).content.replace(KEEP_ALIVE, b"") == text


async def test_streaming_error_frame(stage: Stage) -> None:
    behind, client = stage
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "streaming"}))
    task = await behind.task()
    await behind.end(task, state="failed", status_code=502, error_code="broken", error_message="it broke", body=None)
    frame = (await asking).content.replace(KEEP_ALIVE, b"")
    assert json.loads(frame.removeprefix(b"data: "))["error"] == {
        "message": "it broke",
        "type": "server_error",
        "param": None,
        "code": "broken",
    }


async def test_a_client_that_goes_away_cancels_its_stream(stage: Stage) -> None:
    behind, client = stage
    async with client.stream("POST", PUT, json=BODY | {"response_mode": "streaming"}) as response:
        task = await behind.task()
        await behind.chunk(task, 0, b"{}")
        await anext(response.aiter_raw())
    assert (await behind.cancelled(task))["reason"] == "the client went away"


async def test_a_client_that_does_not_read_delays_no_other(stage: Stage) -> None:
    behind, client = stage
    reader, writer = await asyncio.open_connection("127.0.0.1", behind.settings.ingress.port)
    body = json.dumps(BODY | {"response_mode": "streaming"}).encode()
    head = "POST /v1/queue/put HTTP/1.1\r\nhost: h\r\nauthorization: Bearer hr-local\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    lazy = await behind.task()
    frame = b'"' + b"x" * 200_000 + b'"'
    for seq in range(60):
        await behind.chunk(lazy, seq, frame)
    asking = asyncio.create_task(client.post(PUT, json=BODY | {"response_mode": "blocking"}))
    busy = await behind.task(1)
    await behind.end(busy, body=b'"quick"')
    assert (await asking).json() == "quick"
    ref_text = (b"data: " + frame + b"\n\n") * 60 + b"data: [DONE]\n\n"
    ref = await open_blobs(behind.settings).put(ref_text, name="lazy", media_type="text/event-stream")
    await behind.end(lazy, chunks=60, content_type="text/event-stream", body=None, body_ref=ref)
    received = await reader.read()
    writer.close()
    assert unchunked(received).replace(KEEP_ALIVE, b"") == ref_text


def unchunked(raw: bytes) -> bytes:
    """Take the body out of an answer in chunked transfer coding."""
    _, _, rest = raw.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


async def test_time_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.blocking.GRACE_S", 0.1)
    behind, client = stage
    response = await client.post(PUT, json=BODY | {"response_mode": "blocking", "timeout": 1})
    assert (response.status_code, response.headers["x-should-retry"]) == (408, "false")
    assert response.json()["code"] == 408
    assert (await behind.cancelled(await behind.task()))["kind"] == "cancel"


async def test_get_follows_the_rows(stage: Stage) -> None:
    behind, client = stage
    task_id = (await client.post(PUT, json=BODY | {"trace_id": "t"})).json()["data"]
    task = await behind.task()

    async def status() -> str:
        return str((await client.get(f"/v1/queue/{task_id}")).json()["status"])

    getting = asyncio.create_task(status())
    await behind.row(task)
    assert await getting == "waiting"
    await behind.row(task, state="processing", started_ms=task["created_ms"] + 5)
    await reaches(client, task_id, "queued")
    await behind.end(task, body=b'{"deep":[1.50]}', started_ms=7, finished_ms=9)
    done = await reaches(client, task_id, "succeeded")
    assert done["data"] == BODY["data"]
    assert done["result"] == {"status_code": 200, "request_id": task_id, "body": {"deep": [1.5]}}
    assert (done["running_time"], done["completed_time"]) == (7, 9)
    foreign = behind.tasks[task_id] | {"owner": "key-somebody"}
    await behind.row(foreign, state="completed")  # type: ignore[arg-type]
    await until(lambda: client.get(f"/v1/queue/{task_id}"), lambda answer: answer.status_code == 404)


async def reaches(client: httpx.AsyncClient, task_id: str, status: str) -> dict[str, object]:
    async def look() -> dict[str, object]:
        return dict((await client.get(f"/v1/queue/{task_id}")).json())

    return await until(look, lambda found: found.get("status") == status)


async def test_get_before_any_row(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_lookup, "OWN_WAIT_S", 0.1)
    monkeypatch.setattr(task_lookup, "OTHER_WAIT_S", 0.1)
    behind, client = stage
    for _ in range(5):
        task_id = (await client.post(PUT, json=BODY)).json()["data"]
    async with ingress_running(another(behind)) as other:
        for one in (client, other):
            answer = await one.get(f"/v1/queue/{task_id}")
            assert (answer.status_code, answer.json()["status"]) == (200, "waiting")
            assert answer.json()["data"] == BODY["data"]
    never = ids.parse(task_id)._replace(serial=999_999)
    assert (await client.get(f"/v1/queue/{never}")).status_code == 404


async def test_the_view_resumes_after_a_restart_and_is_rebuilt_when_deleted(stage: Stage, tmp_path: Path) -> None:
    behind = stage[0]
    settings = another(behind, data_dir=tmp_path)
    async with ingress_running(settings) as client:
        first, second = [(await client.post(PUT, json=BODY)).json()["data"] for _ in range(2)]
        await behind.task(1)
        await behind.end(behind.tasks[first])
        await reaches(client, first, "succeeded")
    await behind.end(behind.tasks[second])
    async with ingress_running(settings) as client:
        for task_id in (first, second):
            await reaches(client, task_id, "succeeded")
    shutil.rmtree(tmp_path / "ingress")
    async with ingress_running(settings) as client:
        for task_id in (first, second):
            await reaches(client, task_id, "succeeded")
        await behind.write(topics.status(0), first, None)
        # Without its row a task of the last minutes is looked up in the log, where it still waits.
        await reaches(client, first, "waiting")


async def test_the_view_may_be_deleted_while_it_is_used(stage: Stage, tmp_path: Path) -> None:
    behind = stage[0]
    settings = another(behind, data_dir=tmp_path)
    async with ingress_running(settings) as client:
        first, second = [(await client.post(PUT, json=BODY)).json()["data"] for _ in range(2)]
        await behind.task(1)
        await behind.end(behind.tasks[first])
        await reaches(client, first, "succeeded")
        shutil.rmtree(tmp_path / "ingress")
        await behind.end(behind.tasks[second])
        for task_id in (first, second):
            await reaches(client, task_id, "succeeded")
    async with ingress_running(settings) as client:
        for task_id in (first, second):
            await reaches(client, task_id, "succeeded")


async def test_ready_when_the_whole_path_works(stage: Stage) -> None:
    behind, client = stage
    assert (await client.get("/readyz")).status_code == 503

    async def look() -> httpx.Response:
        await behind.pulse(0, upstreams_up=0)
        await behind.pulse(1)
        return await client.get("/readyz")

    answer = await until(look, lambda answer: answer.status_code == 200)
    assert answer.json() == {"ready": True, "missing": [], "warnings": []}


async def test_topics_that_are_not_there_are_named(kafka: str, tmp_path: Path) -> None:
    settings, _ = settings_for(kafka, tmp_path, f"none-{time.time_ns()}.", ingress__port=free_port())
    async with ingress_running(settings, reached=False) as client:

        async def look() -> str:
            return str((await client.get("/readyz")).json()["missing"])

        told = await until(look, lambda told: "there is no topic" in told)
    assert "run `headrace topics apply`" in told
    assert "model server" not in told
