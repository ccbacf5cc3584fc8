"""What the batch routes refuse, in both dialects, and what they take at its limits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.settings.models import Settings
from ingress.app import create_app
from ingress.files.directory import new_file_id
from schemas.batches import output_file_id
from schemas.ids import TaskId
from tests.support.bella import Double
from tests.support.memory_batches import (
    OPENAI,
    OTHER,
    TWO_TENANTS,
    WANTED,
    created,
    events_of,
    proposed,
    refused,
    uploaded,
)
from tests.support.memory_ingress import HEADERS, ingress_in_memory

SETTINGS = TWO_TENANTS


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": 5}, "input_file_id"),
        ({"input_file_id": "file-unknown"}, "input_file_id"),
        ({"input_file_id": "file-" + "0" * 32 + "-output"}, "input_file_id"),
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        *(
            ({"completion_window": text}, "completion_window")
            for text in ("", "23h", "337h", "8s", "24", "1.5d", "15d", "0h", "24h ", "1440m", "-24h", 24, "９６h")
        ),
        ({"metadata": ["a"]}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 5}}, "metadata.k"),
        ({"metadata": {"callback_url": "ftp://there"}}, "metadata.callback_url"),
        ({"replaces": {}}, "replaces"),
        ({"completion_windows": "24h"}, "completion_windows"),
        ({"replace": ["model"]}, "replace"),
        ({"replace": "m"}, "replace"),
        ({"replace": {"x": "y" * 33_000}}, "replace"),
        *(
            ({"output_expires_after": value}, "output_expires_after")
            for value in (
                5,
                [],
                {},
                {"anchor": "created_at"},
                {"seconds": 3600},
                {"anchor": "ended_at", "seconds": 3600},
                *(
                    {"anchor": "created_at", "seconds": seconds}
                    for seconds in (1, 3599, 2_592_001, 3600.0, "3600", True)
                ),
                {"anchor": "created_at", "seconds": 3600, "minutes": 1},
            )
        ),
    ],
)
async def test_what_is_refused_at_once(ingress: Double, changes: dict[str, Any], member: str) -> None:
    memory, client = ingress
    body = WANTED | {"input_file_id": (await uploaded(client))["id"]} | changes
    refused(await client.post("/v1/batches", json=body), 400, member)
    theirs = await client.post("/v1/batches", json=body, headers=OPENAI)
    assert (theirs.status_code, set(theirs.json()), theirs.json()["error"]["param"]) == (400, {"error"}, member)
    assert events_of(memory) == []


async def test_windows_metadata_and_replace_at_their_limits(ingress: Double) -> None:
    memory, client = ingress
    for window, hours in (("24h", 24), ("336h", 336), ("1d", 24), ("14d", 336)):
        batch = await created(client, completion_window=window)
        assert batch["expires_at"] - batch["created_at"] == hours * 3600
        assert batch["completion_window"] == window
    full = {f"{n:02}" + "k" * 62: "v" * 512 for n in range(16)}
    batch = await created(client, metadata=full, replace={}, output_expires_after=None)
    assert batch["metadata"] == full
    assert proposed(memory, batch["id"])["replace"] is None
    assert (await created(client, replace={"model": "m"}))["model"] == "m"


async def test_short_windows_by_a_setting(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "batches": {"allow_short_window": True}})
    async with ingress_in_memory(settings) as (_, client):
        for window, seconds in (("8s", 8), ("90m", 5400), ("23h", 82_800), ("336h", 1_209_600)):
            batch = await created(client, completion_window=window)
            assert batch["expires_at"] - batch["created_at"] == seconds
        file_id = (await uploaded(client))["id"]
        for window in ("337h", "0s", "1209601s"):
            body = WANTED | {"input_file_id": file_id, "completion_window": window}
            message = refused(await client.post("/v1/batches", json=body), 400, "completion_window")
            assert "from 1s to 336h" in message


async def test_files_that_cannot_be_the_input(ingress: Double) -> None:
    _, client = ingress
    theirs = (
        await client.post("/v1/files", files={"file": ("a", b"x")}, data={"purpose": "batch"}, headers=OTHER)
    ).json()
    deleted = await uploaded(client)
    await client.delete(f"/v1/files/{deleted['id']}")
    for file_id in (theirs["id"], deleted["id"]):
        answer = await client.post("/v1/batches", json=WANTED | {"input_file_id": file_id})
        assert "names no file of yours" in refused(answer, 400, "input_file_id")
    other = await uploaded(client, purpose="user_data")
    answer = await client.post("/v1/batches", json=WANTED | {"input_file_id": other["id"]})
    assert "its purpose must be batch" in refused(answer, 400, "input_file_id")


@pytest.mark.parametrize(
    ("key", "status", "said"), [("nobody", 401, "Invalid token"), ("other", 404, "404 page not found")]
)
async def test_refusals_that_are_bare_strings(ingress: Double, key: str, status: int, said: str) -> None:
    _, client = ingress
    batch_id = (await created(client))["id"]
    headers = {"authorization": f"Bearer {key}"}
    for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/output"), ("GET", "/errors")):
        answer = await client.request(method, f"/v1/batches/{batch_id}{path}", headers=headers)
        assert (answer.status_code, answer.json()) == (status, said)
        theirs = await client.request(method, f"/v1/batches/{batch_id}{path}", headers=headers | OPENAI)
        assert (theirs.status_code, set(theirs.json())) == (status, {"error"})


@pytest.mark.parametrize("default", ["siliconflow", "openai"])
@pytest.mark.parametrize(
    ("method", "path", "status"), [("DELETE", "", 405), ("PATCH", "/x", 405), ("GET", "/x/y", 404)]
)
async def test_where_no_route_is_the_dialect_is_the_same(
    tmp_path: Path, default: str, method: str, path: str, status: int
) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "batches": {"dialect": default}})
    async with ingress_in_memory(settings) as (_, client):
        for asked in (None, "siliconflow", "OpenAI", "azure"):
            headers = {} if asked is None else {"X-Headrace-Dialect": asked}
            answer = await client.request(method, f"/v1/batches{path}", headers=headers)
            spoken = asked.lower() if asked in ("siliconflow", "OpenAI") else default
            assert answer.status_code == status
            if spoken == "openai":
                assert set(answer.json()) == {"error"}
            elif status == 405:
                assert set(answer.json()) == {"code", "message", "data", "error"}
            else:
                assert answer.json() == "404 page not found"
        other = await client.get("/v1/batchesx", headers={"X-Headrace-Dialect": "siliconflow"})
        assert (other.status_code, set(other.json())) == (404, {"error"})


@pytest.mark.parametrize("batch_id", ["batch_x", "batch_" + "0" * 32, "task_" + "0" * 32, "batch_" + "f" * 32])
async def test_unknown_batches(ingress: Double, batch_id: str) -> None:
    answer = await ingress[1].get(f"/v1/batches/{batch_id}")
    assert (answer.status_code, answer.json()) == (404, "404 page not found")


async def test_callbacks(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "batches": {"callback_url": "https://there.example/all"},
            "webhooks": {"allow_private": False},
        }
    )
    async with ingress_in_memory(settings) as (memory, client):
        batch = await created(client)
        assert proposed(memory, batch["id"])["callback_url"] == "https://there.example/all"
        batch = await created(client, metadata={"callback_url": "https://here.example/one"})
        assert proposed(memory, batch["id"])["callback_url"] == "https://here.example/one"
        body = WANTED | {"input_file_id": batch["input_file_id"], "metadata": {"callback_url": "http://127.0.0.1/x"}}
        assert "private" in refused(await client.post("/v1/batches", json=body), 400, "metadata.callback_url")


async def test_without_kafka(ingress: Double) -> None:
    memory, client = ingress
    file_id = (await uploaded(client))["id"]
    memory.broken = True
    answer = await client.post("/v1/batches", json=WANTED | {"input_file_id": file_id})
    refused(answer, 503, None, code=50505)
    assert "retry-after" in answer.headers


async def test_bodies_that_are_no_request(ingress: Double) -> None:
    _, client = ingress
    for body in (b"", b"[]", b"{", b"\xff"):
        refused(await client.post("/v1/batches", content=body), 400, "body")
    answer = await client.post("/v1/batches", content=b" " * 200_000)
    assert answer.status_code == 413
    refused(await client.post("/v1/batches", json={}, headers={"X-Headrace-Level": "0"}), 400, "headers")
    refused(await client.post("/v1/batches", json={}, headers={"X-Headrace-Queue": "a b"}), 400, "X-Headrace-Queue")


async def test_before_kafka_is_reached_every_route_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.files.directory.OTHER_WAIT_S", 0.05)  # no file comes
    app = create_app(Settings(data_dir=tmp_path))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    batch_id, file_id = TaskId(1, 1, "P", int(time.time()), 0, 1).batch(), new_file_id(now_s=int(time.time()))
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress", headers=HEADERS) as client:
        refused(await client.get("/v1/batches"), 503, None, code=50505)
        asked = [
            client.get(f"/v1/batches/{batch_id}"),
            client.get(f"/v1/batches/{batch_id}/output"),
            client.get("/v1/files"),
            client.get(f"/v1/files/{file_id}"),
            client.get(f"/v1/files/{output_file_id(batch_id, errors=False)}/content"),
            client.delete(f"/v1/files/{file_id}"),
            client.post("/v1/files", files={"file": ("a", b"x")}, data={"purpose": "batch"}),
            client.post("/v1/batches", json=WANTED | {"input_file_id": file_id}),
            client.post(f"/v1/batches/{batch_id}/cancel"),
        ]
        for answer in await asyncio.gather(*asked):
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
