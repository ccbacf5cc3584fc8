"""Files and batches through several ingresses before one real Kafka: what one has accepted the others know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.kafka.producer import Producer, Record
from core.storage.blobs import open_blobs
from schemas import topics
from schemas.codec import FILE
from tests.support.batch_client import BatchClient, requests
from tests.support.ingress_backend import ingress_running
from tests.support.ports import free_port
from tests.support.site import Site
from tests.support.waiting import eventually_async

LINES = 40


@pytest.fixture(scope="module")
async def client(site: Site) -> BatchClient:
    return BatchClient(site, "batches")


async def test_what_one_has_accepted_the_other_knows_at_once(client: BatchClient) -> None:
    data = requests(LINES)
    file = await client.upload(data)
    assert await client.ask("GET", f"/v1/files/{file['id']}", at=1) == file
    assert await client.ask("GET", f"/v1/files/{file['id']}/content", at=1) == data
    batch = await client.create(file, at=1)
    assert (await client.ask("GET", f"/v1/batches/{batch['id']}"))["id"] == batch["id"]
    done = await client.batch_ended(batch)
    assert (done["status"], done["request_counts"]) == ("completed", {"total": LINES, "completed": LINES, "failed": 0})
    for at in (0, 1):
        out = await client.ask("GET", f"/v1/batches/{batch['id']}/output", at=at)
        assert {json.loads(line)["custom_id"] for line in out.splitlines()} == {f"c{n}" for n in range(LINES)}
        assert await client.ask("GET", f"/v1/files/{done['output_file_id']}/content", at=at) == out
    await client.ask("DELETE", f"/v1/files/{file['id']}", at=1)
    await client.ask("GET", f"/v1/files/{file['id']}", at=1, status=404)


async def test_a_line_that_is_not_json_is_reported_in_the_error_file_only(client: BatchClient) -> None:
    bad = b'{"custom_id":"half","body":{"messages":[{"role":"user","content":"\\ud83d"}]}}\n'
    batch = await client.create(await client.upload(requests(2) + bad + b"nonsense\n"))
    done = await client.batch_ended(batch)
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 4, "completed": 2, "failed": 2})
    out, errors = [
        [json.loads(line) for line in (await client.ask("GET", f"/v1/batches/{batch['id']}/{kind}")).splitlines()]
        for kind in ("output", "errors")
    ]
    assert sorted(line["custom_id"] for line in out) == ["c0", "c1"]
    told = {line["custom_id"]: line for line in errors}
    assert set(told) == {"half", None}
    assert {line["response"] for line in errors} == {None}
    assert {line["error"]["code"] for line in errors} == {"invalid_json_line"}
    assert told["half"]["error"]["message"].startswith("Line 3: This line is no valid JSON at column ")
    assert "surrogate" in told["half"]["error"]["message"]
    assert told[None]["error"]["message"].startswith("Line 4: This line is no valid JSON at column 1: ")


async def test_a_running_batch_is_cancelled_at_the_other_and_keeps_its_file(client: BatchClient) -> None:
    file = await client.upload(requests(LINES, latency_ms=60_000))
    batch = await client.create(file)
    refused = await client.ask("DELETE", f"/v1/files/{file['id']}", at=1, status=400)
    assert batch["id"] in refused["error"]["message"]
    cancelled = await client.ask("POST", f"/v1/batches/{batch['id']}/cancel", at=1)
    assert cancelled["status"] in ("cancelling", "cancelled")
    assert (await client.batch_ended(batch))["status"] == "cancelled"
    lines = [
        json.loads(line)
        for kind in ("output", "errors")
        for line in (await client.ask("GET", f"/v1/batches/{batch['id']}/{kind}", at=1)).splitlines()
    ]
    assert sorted(line["custom_id"] for line in lines) == sorted(f"c{n}" for n in range(LINES))
    assert {line["error"]["code"] for line in lines if line["error"]} == {"batch_cancelled"}
    await client.ask("DELETE", f"/v1/files/{file['id']}")


async def test_an_ingress_that_starts_knows_all_and_sweeps_what_has_expired(
    site: Site, client: BatchClient, tmp_path: Path
) -> None:
    file = await client.upload(requests(1))
    batch = await client.create(file)
    await client.batch_ended(batch)
    objects = site.settings.data_dir / "objects"
    settings = site.settings.model_copy(
        update={
            "data_dir": tmp_path,
            "ingress": site.settings.ingress.model_copy(update={"port": free_port()}),
            "storage": site.settings.storage.model_copy(update={"sweep_s": 0.2, "url": objects.absolute().as_uri()}),
        }
    )
    blobs, producer = open_blobs(settings), Producer(settings, name="expired")
    blob = await blobs.put(b"old", name="files/file-old", media_type="x")
    old = {"id": "file-old", "owner": "acme", "purpose": "batch", "filename": "x", "blob": blob, "created_ms": 0}
    await producer.start()
    value = FILE.encode({**old, "expires_ms": 1})  # type: ignore[typeddict-item]
    await producer.send(settings.topic(topics.FILES), 0, Record(b"file-old", value))
    await producer.stop()
    async with ingress_running(settings) as http:
        http.headers.update(client.headers)
        await eventually_async(lambda: not (objects / "files/file-old").exists(), what="the end of the old file")
        listed = (await http.get("/v1/batches")).json()["data"]
        assert batch["id"] in {one["id"] for one in listed}
        assert (await http.get(f"/v1/files/{file['id']}/content")).content == requests(1)
        found = {one["id"] for one in (await http.get("/v1/files")).json()["data"]}
        assert file["id"] in found
        assert f"file-{batch['id'].removeprefix('batch_')}-output" in found
