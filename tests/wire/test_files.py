"""The Files API: what is kept, listed, sent and removed, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from schemas.codec import FILE
from tests.support.bella import Double
from tests.support.forms import EDGE, END, HEAD, PURPOSE
from tests.support.memory_batches import LINES, MAX_BYTES, OTHER, SMALL_FILES, created, moved, stored_part, uploaded
from tests.support.openai import error

SETTINGS = SMALL_FILES


def stored(folder: Path) -> list[str]:
    """List what is in the store."""
    objects = folder / "objects"
    return sorted(str(path.relative_to(objects)) for path in objects.rglob("*") if path.is_file())


async def test_a_file_is_kept_shown_and_sent_as_it_came(ingress: Double, tmp_path: Path) -> None:
    memory, client = ingress
    began = int(time.time())
    file = await uploaded(client)
    assert began <= file["created_at"] <= time.time()
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(LINES),
        "created_at": file["created_at"],
        "expires_at": file["created_at"] + 2_592_000,
        "filename": "requests.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert stored(tmp_path) == [f"files/{file['id']}"]
    [record] = memory.written(topics.FILES)
    kept = FILE.decode(record.value or b"")
    assert (record.key, kept["blob"]["size"], kept["filename"]) == (file["id"].encode(), len(LINES), "requests.jsonl")
    assert (await client.get(f"/v1/files/{file['id']}")).json() == file
    content = await client.get(f"/v1/files/{file['id']}/content")
    assert (content.status_code, content.content) == (200, LINES)
    assert content.headers["content-type"] == "application/octet-stream"
    assert content.headers["content-length"] == str(len(LINES))
    head = await client.head(f"/v1/files/{file['id']}/content")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(LINES)))


async def test_an_empty_file_is_for_the_validation_to_judge(ingress: Double) -> None:
    _, client = ingress
    file = await uploaded(client, b"")
    assert file["bytes"] == 0
    content = await client.get(f"/v1/files/{file['id']}/content")
    assert (content.status_code, content.content) == (200, b"")


async def test_the_limit_is_exact_and_nothing_stays_of_what_is_beyond(ingress: Double, tmp_path: Path) -> None:
    _, client = ingress
    assert (await uploaded(client, b"x" * MAX_BYTES))["bytes"] == MAX_BYTES
    before = stored(tmp_path)
    refused = await client.post("/v1/files", files={"file": ("a", b"x" * (MAX_BYTES + 1))}, data={"purpose": "batch"})
    found = error(refused, 413)
    assert (found["param"], "batches.max_bytes" in found["message"]) == ("file", True)
    assert stored(tmp_path) == before


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "anything"}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            "expires_after[anchor]",
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "expires_after[seconds]",
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
            "expires_after[seconds]",
        ),
        ({"purpose": "batch", "expires_after.anchor": "created_at"}, "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after": "3599"}, "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after": "1 hour"}, "expires_after"),
        ({"purpose": "batch", "expires_after": "{}"}, "expires_after"),
        ({"purpose": "batch", "expires_after": '{"anchor":"created_at","minutes":60}'}, "minutes"),
        ({"purpose": "batch", "expires_after": "3600", "expires_after[anchor]": "created_at"}, "expires_after[anchor]"),
        ({"purpose": "batch", "expires_after[second]": "3600"}, "expires_after[second]"),
        ({"purpose": "batch", "expire_after": "3600"}, "expire_after"),
    ],
)
async def test_wrong_fields_are_named(ingress: Double, tmp_path: Path, data: dict[str, str], param: str) -> None:
    memory, client = ingress
    refused = await client.post("/v1/files", files={"file": ("a.jsonl", LINES)}, data=data)
    assert error(refused, 400)["param"] == param
    assert (stored(tmp_path), memory.written(topics.FILES)) == ([], [])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "param"),
    [
        (b"{}", "application/json", 415, "content-type"),
        (PURPOSE + END, EDGE, 400, "file"),
        (PURPOSE + HEAD + b"x\r\n" + HEAD + b"y\r\n" + END, EDGE, 400, "file"),
        (HEAD.replace(b'"file"', b'"other"') + b"x\r\n" + PURPOSE + END, EDGE, 400, "file"),
        (HEAD.replace(b'"a.jsonl"', b'""') + b"x\r\n" + PURPOSE + END, EDGE, 400, "file"),
        (HEAD + b"x\r\n" + PURPOSE, EDGE, 400, "body"),
        (PURPOSE + HEAD + b"x", EDGE, 400, "body"),
        (PURPOSE + PURPOSE + HEAD + b"x\r\n" + END, EDGE, 400, "purpose"),
        (b"no form", EDGE, 400, "body"),
    ],
)
async def test_broken_forms(
    ingress: Double, tmp_path: Path, body: bytes, content_type: str, status: int, param: str
) -> None:
    refused = await ingress[1].post("/v1/files", content=body, headers={"content-type": content_type})
    assert error(refused, status)["param"] == param
    assert stored(tmp_path) == []


async def test_other_purposes_stay_unless_they_say_otherwise(ingress: Double) -> None:
    _, client = ingress
    assert (await uploaded(client, purpose="user_data"))["expires_at"] is None


@pytest.mark.parametrize(
    "form",
    [
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
        {"expires_after.anchor": "created_at", "expires_after.seconds": "3600"},
        {"expires_after[anchor]": "created_at", "expires_after.seconds": " 3600 "},
        {"expires_after": "3600"},
        {"expires_after": '{"anchor":"created_at","seconds":3600}'},
    ],
)
async def test_an_expiry_is_read_in_every_spelling_of_clients(ingress: Double, form: dict[str, str]) -> None:
    file = await uploaded(ingress[1], purpose="user_data", **form)
    assert file["expires_at"] == file["created_at"] + 3600


async def test_files_are_their_tenants_own(ingress: Double) -> None:
    _, client = ingress
    file = await uploaded(client)
    path = f"/v1/files/{file['id']}"
    for method, url in (("GET", path), ("DELETE", path), ("GET", f"{path}/content")):
        assert error(await client.request(method, url, headers=OTHER), 404)["code"] == "not_found"
    assert (await client.get("/v1/files", headers=OTHER)).json()["data"] == []
    assert (await client.get(path)).status_code == 200


async def test_a_deleted_file_is_gone_with_its_bytes(ingress: Double, tmp_path: Path) -> None:
    _, client = ingress
    file = await uploaded(client)
    path = f"/v1/files/{file['id']}"
    assert (await client.delete(path)).json() == {"id": file["id"], "object": "file", "deleted": True}
    assert stored(tmp_path) == []
    for again in (await client.get(path), await client.delete(path), await client.get(f"{path}/content")):
        assert again.status_code == 404


async def test_an_expired_file_is_not_there(ingress: Double) -> None:
    memory, client = ingress
    file = await uploaded(client)
    memory.connected.files._files[file["id"]]["expires_ms"] = 1
    assert error(await client.get(f"/v1/files/{file['id']}"), 404)
    assert (await client.get("/v1/files")).json()["data"] == []


async def test_a_file_in_use_cannot_be_deleted(ingress: Double) -> None:
    memory, client = ingress
    batch = await created(client)
    path = f"/v1/files/{batch['input_file_id']}"
    found = error(await client.delete(path), 400)
    assert batch["id"] in found["message"]
    await moved(memory, batch["id"], state="in_progress")
    assert batch["id"] in error(await client.delete(path), 400)["message"]
    await moved(memory, batch["id"], state="completed", completed_ms=5)
    assert (await client.delete(path)).status_code == 200


async def test_pages_of_the_list(ingress: Double) -> None:
    _, client = ingress
    ids = [(await uploaded(client, purpose=purpose))["id"] for purpose in ("batch", "user_data", "batch", "batch")]

    async def listed(**query: Any) -> Any:
        answer = await client.get("/v1/files", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        shown = [file["id"] for file in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((shown[0], shown[-1]) if shown else (None, None))
        return shown, page["has_more"]

    every, more = await listed()
    assert (sorted(every), more) == (sorted(ids), False)
    assert (await listed(order="asc"))[0] == every[::-1]
    assert await listed(limit=3) == (every[:3], True)
    assert await listed(limit=3, after=every[2]) == (every[3:], False)
    assert len((await listed(purpose="batch"))[0]) == 3
    wrong = {"limit": "0", "order": "up", "purpose": "x", "after": "file-x", "page": "2"}
    for name, value in wrong.items():
        assert error(await client.get("/v1/files", params={name: value}), 400)["param"] == name


async def test_the_files_of_a_batch_are_files_too(ingress: Double) -> None:
    memory, client = ingress
    batch = await created(client, metadata={})
    file_id = batch["output_file_id"]
    assert (await client.get(f"/v1/files/{file_id}")).json()["bytes"] == 0
    first = await stored_part(memory, batch["id"], 7, b'{"n":1}\n')
    await moved(memory, batch["id"], state="in_progress", parts=[first])
    assert (await client.get(f"/v1/files/{file_id}/content")).content == b'{"n":1}\n', "while it runs"
    second = await stored_part(memory, batch["id"], 9, b'{"n":2}\n{"n":3}\n', b'{"n":4}\n')
    await moved(memory, batch["id"], state="completed", completed_ms=5_000, parts=[first, second])
    shown = (await client.get(f"/v1/files/{file_id}")).json()
    assert (shown["purpose"], shown["bytes"], shown["filename"]) == ("batch_output", 24, f"{batch['id']}_output.jsonl")
    assert shown["expires_at"] == 5 + 2_592_000
    answer = await client.get(f"/v1/files/{file_id}/content", headers={"range": "bytes=6-17"})
    assert (answer.status_code, answer.content) == (206, b'{"n":1}\n{"n":2}\n{"n":3}\n'[6:18])
    assert (await client.get(f"/v1/files/{batch['error_file_id']}/content")).content == b'{"n":4}\n'
    listed = (await client.get("/v1/files", params={"purpose": "batch_output"})).json()
    assert {file["id"] for file in listed["data"]} == {file_id, batch["error_file_id"]}
    for headers in ({}, OTHER):
        status = 400 if not headers else 404
        assert error(await client.delete(f"/v1/files/{file_id}", headers=headers), status)
    assert (await client.get(f"/v1/files/{file_id}/content", headers=OTHER)).status_code == 404


async def test_a_lost_piece_is_told_before_the_answer_begins(ingress: Double, tmp_path: Path) -> None:
    memory, client = ingress
    batch = await created(client)
    part = await stored_part(memory, batch["id"], 7, b'{"n":1}\n')
    await moved(memory, batch["id"], state="completed", completed_ms=5, parts=[part])
    for path in (tmp_path / "objects/batches").rglob("*"):
        if path.is_file():
            path.unlink()
    answer = await client.get(f"/v1/files/{batch['output_file_id']}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "body_missing")


async def test_without_kafka_nothing_is_accepted_and_nothing_stays(ingress: Double, tmp_path: Path) -> None:
    memory, client = ingress
    memory.broken = True
    refused = await client.post("/v1/files", files={"file": ("a.jsonl", LINES)}, data={"purpose": "batch"})
    assert error(refused, 503)["code"] == "unavailable"
    assert "retry-after" in refused.headers
    assert stored(tmp_path) == []
