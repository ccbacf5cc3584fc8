"""Files and batches through two ingresses before one real Kafka: what one has accepted the other knows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from core.blobs import open_blobs
from core.kafka.producer import Producer, Record
from schemas import topics
from schemas.codec import FILE
from tests.support.ingress_backend import ingress_running
from tests.support.ports import free_port
from tests.support.two_ingresses import Two, two_ingresses
from tests.support.waiting import eventually_async

LINES = 40


@pytest.fixture(scope="module")
async def two(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    async with two_ingresses(kafka, tmp_path_factory.mktemp("batches")) as both:
        yield both


def requests(count: int = LINES, **sim: object) -> bytes:
    """Build a file of requests."""
    bodies = [{"model": "sim", "messages": [{"role": "user", "content": str(n)}], "sim": sim} for n in range(count)]
    return b"".join(json.dumps({"custom_id": f"c{n}", "body": body}).encode() + b"\n" for n, body in enumerate(bodies))


async def asked(two: Two, at: int, method: str, path: str, *, status: int = 200, **given: Any) -> Any:
    """Send a request to one of the two."""
    async with two.http.request(method, f"{two.urls[at]}{path}", **given) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json() if answer.content_type == "application/json" else await answer.read()


async def uploaded(two: Two, at: int, data: bytes) -> Any:
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", data, filename="requests.jsonl")
    return await asked(two, at, "POST", "/v1/files", data=form)


async def created(two: Two, at: int, file_id: str) -> Any:
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return await asked(two, at, "POST", "/v1/batches", json=body)


async def ended(two: Two, at: int, batch_id: str) -> Any:
    """Look until a batch has ended."""
    give_up = time.monotonic() + 90
    while True:
        batch = await asked(two, at, "GET", f"/v1/batches/{batch_id}")
        if batch["status"] in ("completed", "failed", "expired", "cancelled"):
            return batch
        assert time.monotonic() < give_up, batch
        await asyncio.sleep(0.2)


async def test_what_one_has_accepted_the_other_knows_at_once(two: Two) -> None:
    data = requests()
    file = await uploaded(two, 0, data)
    assert await asked(two, 1, "GET", f"/v1/files/{file['id']}") == file
    assert await asked(two, 1, "GET", f"/v1/files/{file['id']}/content") == data
    batch = await created(two, 1, file["id"])
    assert (await asked(two, 0, "GET", f"/v1/batches/{batch['id']}"))["id"] == batch["id"]
    done = await ended(two, 0, batch["id"])
    assert (done["status"], done["request_counts"]) == ("completed", {"total": LINES, "completed": LINES, "failed": 0})
    for at in (0, 1):
        out = await asked(two, at, "GET", f"/v1/batches/{batch['id']}/output")
        assert {json.loads(line)["custom_id"] for line in out.splitlines()} == {f"c{n}" for n in range(LINES)}
        assert await asked(two, at, "GET", f"/v1/files/{done['output_file_id']}/content") == out
    await asked(two, 1, "DELETE", f"/v1/files/{file['id']}")
    await asked(two, 1, "GET", f"/v1/files/{file['id']}", status=404)


async def test_a_key_is_one_batch_at_all_ingresses_and_across_their_restarts(two: Two) -> None:
    file = await uploaded(two, 0, requests(1))
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    once = {"headers": {"Idempotency-Key": "nightly"}, "json": body}
    both = await asyncio.gather(*(asked(two, number % 2, "POST", "/v1/batches", **once) for number in range(8)))
    [batch_id] = {one["id"] for one in both}
    done = await ended(two, 0, batch_id)
    assert done["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    two.roles[1].kill()
    two.roles[3].kill()  # the scheduler of batches, which comes back by itself
    two.roles[3].start()
    await two.again(1)
    for at in (0, 1):
        assert (await asked(two, at, "POST", "/v1/batches", **once))["id"] == batch_id
        other = {**once, "json": {**body, "completion_window": "2d"}}
        refused = await asked(two, at, "POST", "/v1/batches", status=422, **other)
        assert (refused["error"]["code"], refused["data"]) == ("idempotency_conflict", "Idempotency-Key")
    theirs = {"Authorization": "Bearer other", "Idempotency-Key": "nightly"}
    foreign = await asked(two, 1, "POST", "/v1/batches", status=400, json=body, headers=theirs)
    assert foreign["data"] == "input_file_id", "the key of another tenant is another key"
    listed = (await asked(two, 1, "GET", "/v1/batches"))["data"]
    assert [one["id"] for one in listed if one["input_file_id"] == file["id"]] == [batch_id]


async def test_a_running_batch_is_cancelled_at_the_other_and_keeps_its_file(two: Two) -> None:
    file = await uploaded(two, 0, requests(latency_ms=60_000))
    batch = await created(two, 0, file["id"])
    refused = await asked(two, 1, "DELETE", f"/v1/files/{file['id']}", status=400)
    assert batch["id"] in refused["error"]["message"]
    assert (await asked(two, 1, "POST", f"/v1/batches/{batch['id']}/cancel"))["status"] in ("cancelling", "cancelled")
    done = await ended(two, 0, batch["id"])
    assert done["status"] == "cancelled"
    lines = [
        json.loads(line)
        for kind in ("output", "errors")
        for line in (await asked(two, 1, "GET", f"/v1/batches/{batch['id']}/{kind}")).splitlines()
    ]
    assert sorted(line["custom_id"] for line in lines) == sorted(f"c{n}" for n in range(LINES))
    assert {line["error"]["code"] for line in lines if line["error"]} == {"batch_cancelled"}
    await asked(two, 0, "DELETE", f"/v1/files/{file['id']}")


async def test_an_ingress_that_starts_knows_all_and_sweeps_what_has_expired(two: Two, tmp_path: Path) -> None:
    file = await uploaded(two, 0, requests(1))
    batch = await created(two, 0, file["id"])
    await ended(two, 0, batch["id"])
    changed = {"port": free_port()}
    settings = two.settings.model_copy(
        update={
            "data_dir": tmp_path,
            "ingress": two.settings.ingress.model_copy(update=changed),
            "storage": two.settings.storage.model_copy(
                update={"sweep_s": 0.2, "url": (two.settings.data_dir / "objects").absolute().as_uri()}
            ),
        }
    )
    blobs, producer = open_blobs(settings), Producer(settings, name="expired")
    blob = await blobs.put(b"old", name="files/file-old", media_type="x")
    old = {"id": "file-old", "owner": "acme", "purpose": "batch", "filename": "x", "blob": blob, "created_ms": 0}
    await producer.start()
    value = FILE.encode({**old, "expires_ms": 1})  # type: ignore[typeddict-item]
    await producer.send(settings.topic(topics.FILES), 0, Record(b"file-old", value))
    await producer.stop()
    async with ingress_running(settings) as client:
        await eventually_async(
            lambda: not (two.settings.data_dir / "objects/files/file-old").exists(), what="the end of the old file"
        )
        listed = (await client.get("/v1/batches")).json()["data"]
        assert batch["id"] in {one["id"] for one in listed}
        assert (await client.get(f"/v1/files/{file['id']}/content")).content == requests(1)
        found = {one["id"] for one in (await client.get("/v1/files")).json()["data"]}
        assert file["id"] in found
        assert f"file-{batch['id'].removeprefix('batch_')}-output" in found
