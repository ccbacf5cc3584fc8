"""Who was told of a batch's end, and telling them again."""

from __future__ import annotations

from typing import Any

import pytest

from core.deliveries import new_delivery, row
from schemas import topics
from schemas.codec import DELIVERY
from schemas.records import Delivery
from tests.support.bella import Double
from tests.support.memory_batches import OPENAI, OTHER, TWO_TENANTS, created, moved, refused

NOW_MS = 1_769_860_800_000
URL = "http://there/x"


SETTINGS = TWO_TENANTS


async def told(ingress: Double) -> tuple[str, Delivery]:
    """Create a batch that has ended and whose callback was given up."""
    memory, client = ingress
    batch_id = (await created(client))["id"]
    await moved(memory, batch_id, state="completed", completed_ms=5, callback_url=URL)
    made = new_delivery(
        batch_id,
        "batch.completed",
        name="batch.completed",
        url=URL,
        owner=None,
        level=1,
        result_offset=None,
        payload=b"{}",
        now_ms=NOW_MS,
    )
    delivery: Delivery = {**made, "state": "failed", "step": 9, "due_ms": None}
    await memory.send(*row(memory.settings, delivery, now_ms=NOW_MS))
    return batch_id, delivery


async def test_who_was_told_of_the_end(ingress: Double) -> None:
    _, client = ingress
    batch_id, _ = await told(ingress)
    path = f"/v1/batches/{batch_id}/deliveries"
    shown = (await client.get(path)).json()
    assert (shown["object"], shown["batch_id"]) == ("list", batch_id)
    [one] = shown["data"]
    assert (one["event"], one["status"], one["url"]) == ("batch.completed", "failed", URL)
    assert (await client.get(path, headers=OTHER)).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{}", b'{"event":null}', b'{"event":"batch.completed"}'])
async def test_a_resend_begins_a_new_round_at_once(ingress: Double, body: bytes) -> None:
    memory, client = ingress
    batch_id, before = await told(ingress)
    answer = await client.post(f"/v1/batches/{batch_id}/deliveries/resend", content=body)
    assert (answer.status_code, answer.json()["batch_id"]) == (202, batch_id)
    [shown] = answer.json()["data"]
    assert (shown["status"], shown["id"]) == ("pending", before["id"])
    [record] = memory.written(topics.retry(0))
    again = DELIVERY.decode(record.value or b"")
    assert (again["step"], again["manual"], again["payload"]) == (0, True, b"{}")
    assert memory.of(batch_id) == [again], "a look after the resend shows it as pending"


@pytest.mark.parametrize(
    ("changes", "body", "sentence", "member"),
    [
        ({"state": "completed"}, b"", "names no callback_url", None),
        ({"state": "in_progress", "callback_url": URL}, b"", "has not ended yet", None),
        ({"state": "failed", "callback_url": URL}, b"", "none sent yet", None),
        ({"state": "failed", "callback_url": URL}, b'{"event":"batch.failed"}', "none sent yet", None),
        ({"state": "failed", "callback_url": URL}, b'{"event":"batch.expired"}', "no batch.expired delivery", "event"),
        ({"state": "failed", "callback_url": URL}, b'{"event":"failed"}', "must be one of batch.completed", "event"),
        ({"state": "failed", "callback_url": URL}, b'{"evnt":1}', "there is no member evnt", "evnt"),
        ({"state": "failed", "callback_url": URL}, b"[]", "must be a JSON object", "body"),
    ],
)
async def test_what_cannot_be_sent_again_is_a_400(
    ingress: Double, changes: dict[str, Any], body: bytes, sentence: str, member: str | None
) -> None:
    memory, client = ingress
    batch_id = (await created(client))["id"]
    await moved(memory, batch_id, **changes)
    path = f"/v1/batches/{batch_id}/deliveries/resend"
    assert sentence in refused(await client.post(path, content=body), 400, member)
    theirs = await client.post(path, content=body, headers=OPENAI)
    assert (theirs.status_code, set(theirs.json()), theirs.json()["error"]["param"]) == (400, {"error"}, member)
    assert memory.written(topics.retry(0)) == []


async def test_bounds_of_a_resend(ingress: Double) -> None:
    memory, client = ingress
    batch_id, _ = await told(ingress)
    path = f"/v1/batches/{batch_id}/deliveries/resend"
    too_large = await client.post(path, content=b" " * 4_097)
    assert (too_large.status_code, too_large.json()["message"]) == (
        413,
        "the body is larger than 4096 bytes (a fixed limit)",
    )
    assert (await client.post(path, headers=OTHER)).json() == "404 page not found"
    assert memory.written(topics.retry(0)) == []
