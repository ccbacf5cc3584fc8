"""Batches with an Idempotency-Key, and the files of batches that expire before their batch does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import epoch_ms
from core.settings.models import Settings
from ingress.batches import idempotency
from ingress.batches.idempotency import SKEW_S, id_of_key, may_have_key, window_starts
from schemas.ids import parse_batch
from schemas.partitioning import home_partition
from tests.support.bella import Double
from tests.support.memory_batches import (
    OPENAI,
    OTHER,
    TWO_TENANTS,
    WANTED,
    created,
    events_of,
    moved,
    proposed,
    refused,
    stored_part,
    uploaded,
)
from tests.support.memory_ingress import ingress_in_memory

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEY = {"Idempotency-Key": "nightly"}
DAY_S = 86_400


SETTINGS = TWO_TENANTS


@pytest.fixture(autouse=True)
def scheduled(ingress: Double) -> None:
    """Let batches get their first row, as the scheduler makes it."""
    ingress[0].schedules = True


async def wanted(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    return WANTED | {"input_file_id": (await uploaded(client))["id"]} | changes


async def test_one_key_and_one_body_are_one_batch(ingress: Double) -> None:
    memory, client = ingress
    body = await wanted(client, metadata={"a": "b"}, replace={"model": "m"})
    both = await asyncio.gather(*(client.post("/v1/batches", json=body, headers=KEY) for _ in range(5)))
    [batch_id] = {answer.json()["id"] for answer in both}
    written = len(events_of(memory))
    await client.delete(f"/v1/files/{body['input_file_id']}")
    await moved(memory, batch_id, state="completed", completed_ms=5)
    again = await client.post("/v1/batches", json=body, headers=KEY | OPENAI)
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, batch_id, "completed")
    assert len(events_of(memory)) == written, "nothing is written for a batch that is known"
    assert len(memory.connected.batches.of(proposed(memory, batch_id)["owner"])) == 1


async def test_another_body_is_refused_in_both_dialects(ingress: Double) -> None:
    _, client = ingress
    body = await wanted(client, metadata={"a": "b"}, replace={"model": "m"})
    batch_id = (await client.post("/v1/batches", json=body, headers=KEY)).json()["id"]
    for changes in (
        {"endpoint": "/v1/embeddings"},
        {"completion_window": "48h"},
        {"metadata": {"a": "c"}},
        {"replace": None},
        {"input_file_id": (await uploaded(client))["id"]},
        {"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
    ):
        answer = await client.post("/v1/batches", json=body | changes, headers=KEY)
        assert batch_id in refused(answer, 422, "Idempotency-Key")
        theirs = (await client.post("/v1/batches", json=body | changes, headers=KEY | OPENAI)).json()
        assert (set(theirs), theirs["error"]["code"]) == ({"error"}, "idempotency_conflict")
    for wrong in ("", "x" * 257, "é"):
        headers = {"Idempotency-Key": wrong.encode()}
        refused(await client.post("/v1/batches", json=body, headers=headers), 400, "Idempotency-Key")


async def test_a_key_is_that_of_its_owner_and_queue(ingress: Double) -> None:
    _, client = ingress
    body = await wanted(client)
    form = {"files": {"file": ("a", b"{}")}, "data": {"purpose": "batch"}, "headers": OTHER}
    theirs = body | {"input_file_id": (await client.post("/v1/files", **form)).json()["id"]}  # type: ignore[arg-type]
    found = [
        await client.post("/v1/batches", json=body, headers=KEY),
        await client.post("/v1/batches", json=body, headers=KEY | {"X-Headrace-Queue": "night"}),
        await client.post("/v1/batches", json=theirs, headers=KEY | OTHER),
        await client.post("/v1/batches", json=body, headers={"Idempotency-Key": "weekly"}),
        await client.post("/v1/batches", json=body),
    ]
    assert len({answer.json()["id"] for answer in found}) == 5


async def test_a_key_stands_for_a_day(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = ingress
    body = await wanted(client)

    async def at(later_s: float) -> str:
        now_ms = epoch_ms() + int(later_s * 1000)
        monkeypatch.setattr(idempotency, "epoch_ms", lambda: now_ms)
        answer = await client.post("/v1/batches", json=body, headers=KEY)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    first = await at(0)
    assert [await at(later_s) for later_s in (60, DAY_S / 2, DAY_S - 60)] == [first] * 3
    assert await at(DAY_S + 60) != first


async def test_what_nobody_has_judged_may_be_sent_again(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = ingress
    memory.schedules = False
    monkeypatch.setattr(idempotency, "DECISION_TIMEOUT_S", 0.01)
    body = await wanted(client)
    answer = await client.post("/v1/batches", json=body, headers=KEY)
    assert answer.status_code == 503
    assert "send it again with the key" in answer.json()["message"]
    assert "x-should-retry" not in answer.headers
    memory.schedules = True
    again = await client.post("/v1/batches", json=body, headers=KEY)
    assert (again.status_code, again.json()["status"]) == (200, "in_queue")
    assert {event["id"] for event in events_of(memory)} == {again.json()["id"]}


@given(
    first_s=st.integers(1_700_000_000, 1_900_000_000),
    later_s=st.integers(-SKEW_S, 7 * DAY_S),
    window_s=st.sampled_from([60, 3_600, DAY_S, 7 * DAY_S]),
)
def test_a_batch_is_looked_for_wherever_its_twin_may_lie(first_s: int, later_s: int, window_s: int) -> None:
    own = window_starts(first_s, window_s=window_s)[0]
    if later_s < window_s:
        assert own in window_starts(first_s + later_s, window_s=window_s)
    assert own <= first_s < own + window_s


@given(key=st.text("ab1", min_size=1), width=st.integers(0, 6), begin=st.integers(20_000, 22_000))
def test_the_id_of_a_key_is_that_of_a_batch_in_its_queues_slice(key: str, width: int, begin: int) -> None:
    queue: Any = {"name": "night", "width": width}
    made = [id_of_key(queue, "acme", key, begin_s=begin * DAY_S, partitions=6) for _ in range(2)]
    assert made[0] == made[1] == parse_batch(made[0].batch())
    assert may_have_key(made[0], window_s=DAY_S)
    homes = {home_partition("night", number, width=width, partitions=6) for number in range(50)}
    assert made[0].partition in homes


async def test_the_trace_of_a_batch_is_kept_for_its_callback(ingress: Double) -> None:
    memory, client = ingress
    batch = await created(client, headers={"traceparent": PARENT})
    assert proposed(memory, batch["id"])["traceparent"] == PARENT
    plain = await created(client, headers={"traceparent": "00-nothing"})
    assert proposed(memory, plain["id"])["traceparent"] is None


async def test_files_of_a_batch_expire_as_its_creator_asked(ingress: Double) -> None:
    memory, client = ingress
    asked = {"anchor": "created_at", "seconds": 3_600}
    batch = await created(client, output_expires_after=asked)
    assert proposed(memory, batch["id"])["output_expires_s"] == 3_600
    part = await stored_part(memory, batch["id"], 4, b"{}\n", b"{}\n")
    paths = [f"/v1/files/{batch['output_file_id']}", f"/v1/batches/{batch['id']}/output"]
    paths += [f"/v1/files/{batch['error_file_id']}/content", f"/v1/batches/{batch['id']}/errors"]
    now_ms = time.time_ns() // 1_000_000
    for ended_ms, status in ((None, 200), (now_ms, 200), (now_ms - 3_600_000, 404)):
        state = "in_progress" if ended_ms is None else "completed"
        await moved(memory, batch["id"], state=state, completed_ms=ended_ms, parts=[part])
        assert {(await client.get(path)).status_code for path in paths} == {status}
        shown = await client.get(paths[0])
        if ended_ms == now_ms:
            assert shown.json()["expires_at"] == (now_ms + 3_600_000) // 1000
        listed = (await client.get("/v1/files", params={"purpose": "batch_output"})).json()["data"]
        assert len(listed) == (2 if status == 200 else 0)
    assert (await client.get(f"/v1/batches/{batch['id']}")).json()["status"] == "completed"


async def test_files_of_a_batch_go_with_it_at_the_latest(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "batches": {"retention_s": 7_200}})
    async with ingress_in_memory(settings) as (memory, client):
        batch = await created(client, output_expires_after={"anchor": "created_at", "seconds": 86_400})
        part = await stored_part(memory, batch["id"], 4, b"{}\n")
        now_ms = time.time_ns() // 1_000_000
        await moved(memory, batch["id"], state="completed", completed_ms=now_ms, parts=[part])
        shown = (await client.get(f"/v1/files/{batch['output_file_id']}")).json()
        assert shown["expires_at"] == (now_ms + 7_200_000) // 1000
