"""The batch routes in both dialects: what is written, shown and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from schemas import ids, topics
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

MEMBERS = [
    "id",
    "object",
    "endpoint",
    "model",
    "errors",
    "input_file_id",
    "completion_window",
    "status",
    "output_file_id",
    "error_file_id",
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "request_counts",
    "usage",
    "metadata",
]


SETTINGS = TWO_TENANTS


async def test_what_is_written(ingress: Double) -> None:
    memory, client = ingress
    file = await uploaded(client)
    body = WANTED | {
        "input_file_id": file["id"],
        "completion_window": "2d",
        "metadata": {"a": "b"},
        "replace": {"model": "m", "big": 12345678901234567890123},
    }
    response = await client.post("/v1/batches", content=json.dumps(body), headers={"X-Headrace-Queue": "night"})
    assert response.status_code == 200
    batch = response.json()
    [event] = events_of(memory)
    identity = ids.parse_batch(batch["id"])
    assert (identity.mode, identity.level) == ("P", 1)
    assert (event["kind"], event["id"], event["owner"]) == (
        "batch_created",
        batch["id"],
        proposed(memory, batch["id"])["owner"],
    )
    [(tp, _)] = [(tp, log) for tp, log in memory.log.items() if tp.topic.endswith(topics.events(1))]
    assert tp.partition == identity.partition
    row = proposed(memory, batch["id"])
    assert (row["state"], row["queue"], row["queue_number"]) == ("validating", "night", identity.queue_number)
    assert (row["input"]["uri"], row["input"]["size"]) == (f"files/{file['id']}", file["bytes"])
    assert row["expires_ms"] - row["created_ms"] == 2 * 86_400_000
    assert json.loads(row["replace"] or b"") == body["replace"]
    assert b"12345678901234567890123" in (row["replace"] or b"")
    assert (row["metadata"], row["callback_url"], row["total"], row["stamp_s"]) == (
        {"a": "b"},
        None,
        0,
        row["created_ms"] // 1000,
    )


async def test_both_dialects_of_a_new_batch(ingress: Double) -> None:
    _, client = ingress
    ours = await created(client)
    theirs = (await client.get(f"/v1/batches/{ours['id']}", headers=OPENAI)).json()
    assert list(ours) == list(theirs) == MEMBERS
    assert (ours["status"], ours["request_counts"], ours["errors"]) == ("in_queue", None, None)
    assert (theirs["status"], theirs["errors"]) == ("validating", None)
    assert theirs["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert ours["expires_at"] - ours["created_at"] == 86_400
    hex_ = ours["id"].removeprefix("batch_")
    assert (ours["output_file_id"], ours["error_file_id"]) == (f"file-{hex_}-output", f"file-{hex_}-errors")
    for dialect in (ours, theirs):
        assert {dialect[name] for name in MEMBERS if name.endswith("_at")} == {
            None,
            ours["created_at"],
            ours["expires_at"],
        }


async def test_the_setting_chooses_the_dialect_and_the_header_overrules_it(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "batches": {"dialect": "openai"}})
    async with ingress_in_memory(settings) as (_, client):
        batch = await created(client)
        assert batch["status"] == "validating"
        path = f"/v1/batches/{batch['id']}"
        assert (await client.get(path, headers={"X-Headrace-Dialect": "SiliconFlow"})).json()["status"] == "in_queue"
        wrong = await client.get(path, headers={"X-Headrace-Dialect": "azure"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "X-Headrace-Dialect")


async def test_how_a_batch_goes_on(ingress: Double) -> None:
    memory, client = ingress
    batch_id = (await created(client))["id"]
    path = f"/v1/batches/{batch_id}"
    await moved(memory, batch_id, state="in_progress", in_progress_ms=5_500, total=3, fed=2, completed=1)
    shown = (await client.get(path)).json()
    assert (shown["status"], shown["in_progress_at"]) == ("in_progress", 5)
    assert shown["request_counts"] == {"total": 3, "completed": 1, "failed": 0}
    assert (await client.get(f"{path}/output")).content == b""
    part = await stored_part(memory, batch_id, 4, b"{}\n")
    await moved(
        memory,
        batch_id,
        state="completed",
        completed_ms=9_000,
        total=3,
        completed=3,
        parts=[part],
        usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    )
    shown = (await client.get(path)).json()
    assert (shown["status"], shown["completed_at"]) == ("completed", 9)
    assert shown["output_file_id"] is not None
    assert shown["error_file_id"] is None
    assert shown["usage"]["input_tokens"] == 1
    assert shown["usage"]["total_tokens"] == 3
    output = await client.get(f"{path}/output")
    assert (output.content, output.headers["content-type"]) == (b"{}\n", "application/jsonl")
    assert (await client.get(f"{path}/errors")).content == b""


async def test_what_is_wrong_with_a_file_in_both_dialects(ingress: Double) -> None:
    memory, client = ingress
    batch_id = (await created(client))["id"]
    error = {"code": "invalid_json_line", "message": "This line is no JSON.", "param": None, "line": 2}
    await moved(memory, batch_id, state="failed", failed_ms=9_000, errors=[error])
    ours = (await client.get(f"/v1/batches/{batch_id}")).json()
    theirs = (await client.get(f"/v1/batches/{batch_id}", headers=OPENAI)).json()
    assert ours["errors"] == ["line 2: invalid_json_line: This line is no JSON."]
    assert theirs["errors"] == {"object": "list", "data": [error]}
    assert (ours["output_file_id"], ours["error_file_id"]) == (None, None)


async def test_pages_of_the_list(ingress: Double) -> None:
    memory, client = ingress
    made = [(await created(client))["id"] for _ in range(3)]
    for number, batch_id in enumerate(made[:2]):
        await moved(memory, batch_id, state="in_progress", created_ms=1_000 * number)
    newest = made[::-1]

    async def listed(**query: Any) -> Any:
        answer = await client.get("/v1/batches", params=query)
        page = answer.json()
        assert page["object"] == "list"
        return [batch["id"] for batch in page["data"]], page["first_id"], page["last_id"], page["has_more"]

    entries = (await client.get("/v1/batches")).json()["data"]
    assert {entry["file_name"] for entry in entries} == {"requests.jsonl"}
    assert "file_name" not in (await client.get("/v1/batches", headers=OPENAI)).json()["data"][0]
    assert await listed() == (newest, newest[0], newest[2], False)
    assert await listed(limit=2) == (newest[:2], newest[0], newest[1], True)
    assert await listed(limit=2, after=newest[1]) == (newest[2:], newest[2], newest[2], False)
    assert (await client.get("/v1/batches", headers=OTHER)).json()["data"] == []
    for name, value in (("limit", "0"), ("limit", "101"), ("limit", "x"), ("after", "batch_x"), ("before", "x")):
        refused(await client.get("/v1/batches", params={name: value}), 400, name)


async def test_cancel(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.batches.service.DECISION_TIMEOUT_S", 0.05)  # nobody folds the cancel
    memory, client = ingress
    batch_id = (await created(client))["id"]
    path = f"/v1/batches/{batch_id}/cancel"
    answer = await client.post(path)
    assert answer.json()["status"] == "cancelling", "the cancel is in the log, though nobody has folded it"
    [_, event] = events_of(memory)
    assert (event["kind"], event["id"], event["owner"]) == (
        "batch_cancel",
        batch_id,
        proposed(memory, batch_id)["owner"],
    )
    for state in ("cancelling", "cancelled"):
        await moved(memory, batch_id, state=state, cancelling_ms=5_000)
        answer = await client.post(path)
        assert (answer.status_code, answer.json()["status"]) == (200, state)
    for state in ("finalizing", "completed", "failed", "expired"):
        await moved(memory, batch_id, state=state)
        refused(await client.post(path), 400, None)
    assert len(events_of(memory)) == 2


async def test_a_batch_of_another_ingress_is_found_before_its_row(
    ingress: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingress.batches.service.OTHER_WAIT_S", 0.05)  # its row does not come
    memory, client = ingress
    batch_id = (await created(client))["id"]
    memory.connected.batches._proposed.clear()
    memory.connected.batches.check_read()
    answer = await client.get(f"/v1/batches/{batch_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "in_queue")
