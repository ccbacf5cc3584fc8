"""Batches as tests of the HTTP side need them: uploaded, created, moved on as the scheduler and the writer would."""

from __future__ import annotations

from typing import Any

import httpx

from core.kafka.producer import Record
from ingress.batches.commands import proposed as made
from ingress.batches.request import BatchRequest
from schemas import ids, topics
from schemas.batches import Batch, BatchFile, segment_name
from schemas.codec import BATCH, EVENT
from schemas.common import BatchPart
from schemas.records import Event
from tests.support.memory_ingress import Memory
from tests.support.records import queue

TWO_TENANTS: dict[str, Any] = {"auth": {"api_keys": ["hr-local", "other"]}}
"""Settings of an ingress with one more tenant, whose key is in OTHER."""
OTHER = {"authorization": "Bearer other"}
MAX_BYTES = 20_000
SMALL_FILES = TWO_TENANTS | {"batches": {"max_bytes": MAX_BYTES}}
"""The same settings, with a low limit for the size of files."""
OPENAI = {"X-Headrace-Dialect": "openai"}
LINES = b'{"custom_id":"a","body":{"model":"m","messages":[]}}\n'
WANTED: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def uploaded(client: httpx.AsyncClient, data: bytes = LINES, *, purpose: str = "batch", **form: str) -> Any:
    """Upload a file and return its object."""
    response = await client.post(
        "/v1/files", files={"file": ("requests.jsonl", data)}, data={"purpose": purpose, **form}
    )
    assert response.status_code == 200, response.text
    return response.json()


async def created(client: httpx.AsyncClient, headers: dict[str, str] | None = None, **changes: Any) -> Any:
    """Create a batch of an uploaded file and return its object."""
    file = await uploaded(client)
    response = await client.post("/v1/batches", json=WANTED | {"input_file_id": file["id"]} | changes, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def events_of(memory: Memory) -> list[Event]:
    """Return the events that were written to the offline lane."""
    return [EVENT.decode(record.value or b"") for record in memory.written(topics.events(1))]


def proposed(memory: Memory, batch_id: str) -> Batch:
    """Return the row that a create proposed, the first one when a key was sent more than once."""
    change, *_ = [event["change"] for event in events_of(memory) if event["id"] == batch_id and event["change"]]
    return BATCH.decode(change["batch"] or b"")


async def moved(memory: Memory, batch_id: str, **changes: Any) -> Batch:
    """Write a row as the scheduler does."""
    row: Batch = {**proposed(memory, batch_id), "ended": b"\xff", **changes}  # type: ignore[typeddict-item]
    topic = memory.settings.topic(topics.BATCHES)
    await memory.send(topic, ids.parse_batch(batch_id).partition, Record(batch_id.encode(), BATCH.encode(row)))
    return row


async def stored_part(memory: Memory, batch_id: str, end: int, output: bytes, errors: bytes = b"") -> BatchPart:
    """Store a piece of both files and return what the row says of it."""
    part: BatchPart = {
        "end": end,
        "token": f"{end:08x}",
        "output_bytes": len(output),
        "error_bytes": len(errors),
        "output_lines": output.count(b"\n"),
        "error_lines": errors.count(b"\n"),
    }
    for data, wrong in ((output, False), (errors, True)):
        if data:
            name = segment_name(batch_id, part, errors=wrong)
            await memory.ingress.blobs.put(data, name=name, media_type="application/jsonl")
    return part


def refused(response: httpx.Response, status: int, data: str | None, code: int = 20012) -> str:
    """Check the error body of SiliconFlow's dialect, which is OpenAI's too, and return the message."""
    body = response.json()
    assert (response.status_code, body["code"], body["data"]) == (status, code, data), response.text
    assert (body["error"]["param"], body["error"]["message"]) == (data, body["message"])
    return str(body["message"])


def row_of(batch_id: str) -> Batch:
    """Return the row of a batch that was just created."""
    wanted = BatchRequest("file-x", "/v1/chat/completions", "24h", 86_400, {}, None, None)
    file: BatchFile = {
        "id": "file-x",
        "owner": "acme",
        "purpose": "batch",
        "filename": "x",
        "created_ms": 0,
        "expires_ms": None,
        "blob": {"uri": "files/file-x", "size": 1, "sha256": "0" * 64},
    }
    return made(wanted, file, batch_id=batch_id, owner="acme", queue=queue("batch"), now_ms=1_769_860_800_000)
