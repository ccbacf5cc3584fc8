"""Which batch rows cause a notification, and with which payload."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher.webhooks.notifications import RECENT_MS, NotifiedBatches, batch_notification
from schemas.batches import BATCH_STATES, Batch
from schemas.codec import BATCH, batch_state_of
from schemas.ids import TaskId, parse_batch
from tests.support.memory_batches import row_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW_MS = 1_769_860_800_000
BATCH_ID = TaskId(7, 1, "P", NOW_MS // 1000, 3, 9).batch()


def encoded(**changes: Any) -> bytes:
    told = {"callback_url": "http://there/x", "traceparent": PARENT}
    row: Batch = {**row_of(BATCH_ID), **told, **changes}  # type: ignore[typeddict-item]
    return BATCH.encode(row)


@pytest.mark.parametrize("state", BATCH_STATES)
def test_only_an_end_is_notified(state: Any) -> None:
    value = encoded(state=state, **{f"{state}_ms": NOW_MS} if state != "validating" else {})
    assert batch_state_of(value) == state
    delivery = batch_notification(value, now_ms=NOW_MS + 1_000)
    if state not in ("completed", "failed", "expired", "cancelled"):
        assert delivery is None
        return
    assert delivery is not None
    assert (delivery["task_id"], delivery["event"], delivery["level"]) == (BATCH_ID, f"batch.{state}", 1)
    assert delivery["id"] == f"{BATCH_ID}-batch.{state}"
    assert delivery["traceparent"] == PARENT
    told = json.loads(delivery["payload"] or b"")
    assert told.pop("id").startswith("evt_")
    assert told == {"object": "event", "created_at": NOW_MS // 1000, "type": f"batch.{state}", "data": {"id": BATCH_ID}}
    again = batch_notification(value, now_ms=NOW_MS + 90_000)
    assert again is not None
    assert again["payload"] == delivery["payload"], "told twice it is the same event"


def test_there_is_no_notification_without_a_callback_or_of_an_old_end() -> None:
    ended = {"state": "completed", "completed_ms": NOW_MS}
    assert batch_notification(encoded(**ended, callback_url=None), now_ms=NOW_MS) is None
    assert batch_notification(encoded(**ended), now_ms=NOW_MS + RECENT_MS + 1) is None


def test_a_repeated_row_is_notified_once_per_assignment() -> None:
    notified, first, second = NotifiedBatches(), object(), object()
    seen = [notified.is_new("a", assignment) for assignment in (first, first, second, second)]
    assert seen == [True, False, True, False]


def test_the_home_is_in_the_id() -> None:
    assert parse_batch(BATCH_ID).partition == 3
