"""Compressed request bodies at every door that takes bodies: read, and held to the limit of what they hold."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from schemas import topics
from schemas.codec import TASK
from tests.support.bella import BODY, PUT, Double
from tests.support.memory_ingress import Memory

CHAT = b'{"model":"m","async":true,"messages":[{"role":"user","content":"%b"}]}'
SETTINGS = {"ingress": {"max_body_bytes": 200_000, "max_upload_bytes": 300_000}, "batches": {"max_bytes": 300_000}}
BOMB = gzip.compress(b"\0" * 60_000_000)


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_task(ingress: Double, coding: str, pack: Any) -> None:
    memory, client = ingress
    answer = await client.post(PUT, content=pack(json.dumps(BODY).encode()), headers={"content-encoding": coding})
    assert answer.status_code == 200, answer.text
    body = CHAT % (b"x" * 100_000)
    answer = await client.post("/v1/chat/completions", content=pack(body), headers={"content-encoding": coding})
    assert answer.status_code == 202, answer.text
    first, second = (TASK.decode(record.value or b"") for record in memory.written(topics.tasks(0)))
    assert json.loads(first["data"] or b"") == BODY["data"]
    assert len(second["data"] or b"") > 100_000


def packed_form(client: Any, path: str, **sent: Any) -> dict[str, Any]:
    """Build a form as httpx does, and compress it."""
    request = client.build_request("POST", path, **sent)
    headers = {"content-type": request.headers["content-type"], "content-encoding": "gzip"}
    return {"content": gzip.compress(request.read()), "headers": headers}


FORMS: list[tuple[str, str, dict[str, str]]] = [
    ("/v1/files", "a.jsonl", {"purpose": "batch"}),
    ("/v1/audio/transcriptions", "a.mp3", {"model": "m", "async": "true"}),
    ("/files/upload", "a.png", {"user": "u"}),
]


@pytest.mark.parametrize(("path", "name", "data"), FORMS)
async def test_a_form(ingress: Double, path: str, name: str, data: dict[str, str]) -> None:
    _, client = ingress
    content = b"0123456789" * 20_000
    answer = await client.post(path, **packed_form(client, path, data=data, files={"file": (name, content)}))
    assert answer.status_code in (200, 201, 202), answer.text
    if path == "/v1/files":
        found = await client.get(f"/v1/files/{answer.json()['id']}/content")
        assert found.content == content


def stored(memory: Memory) -> list[str]:
    """List what is in the object store."""
    folder = memory.settings.data_dir
    return [str(path) for path in folder.rglob("*") if path.is_file() and "objects" in path.parts]


@pytest.mark.parametrize("path", [PUT, "/v1/chat/completions", "/v1/batches", "/completion-messages"])
async def test_a_body_that_holds_more_than_is_allowed(ingress: Double, path: str) -> None:
    memory, client = ingress
    answer = await client.post(path, content=BOMB, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert memory.log == {}


@pytest.mark.parametrize(("path", "name", "data"), FORMS[:2])
async def test_a_form_that_holds_more_than_is_allowed(
    ingress: Double, path: str, name: str, data: dict[str, str]
) -> None:
    memory, client = ingress
    files = {"file": (name, b"\0" * 30_000_000)}
    answer = await client.post(path, **packed_form(client, path, data=data, files=files))
    assert answer.status_code == 413, answer.text
    assert stored(memory) == []


@pytest.mark.parametrize("coding", ["br", "gzip, br"])
async def test_other_codings_are_refused_by_name(ingress: Double, coding: str) -> None:
    answer = await ingress[1].post(PUT, json=BODY, headers={"content-encoding": coding})
    assert (answer.status_code, answer.json()["field"]) == (400, "body")
    assert "there are gzip, x-gzip, deflate, identity" in answer.json()["message"]
