"""Deliveries that status rows cause: start, progress and expiry of tasks, and the end of batches. Pure.

Status rows of tasks whose callback subscribes to more than the outcome have a header; all others are not decoded.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from core.bounded_set import BoundedDict
from core.deliveries import new_delivery
from dispatcher.webhooks.payload import progress_payload
from dispatcher.webhooks.records import from_status
from schemas.batches import BATCH_ENDED, ended_ms
from schemas.codec import BATCH, batch_state_of
from schemas.records import TERMINAL, Delivery, Status

MIN_INTERVAL_MS = 500
"""Minimum time between two progress notifications of a task."""
SHORT_CALL_MS = 2_000
"""A call shorter than the commit interval has no status row of its start: it is notified from the row of its end."""
TRACKED_TASKS = 20_000
RECENT_MS = 7 * 86_400_000
"""Rows stay for a month, deliveries for eight days: a group without offsets must not notify of old ends again."""
LEVEL = 1
TRACKED_BATCHES = 10_000


class _Sent(NamedTuple):
    start: bool
    progress: int
    at_ms: int


class ProgressNotifications:
    """The notifications sent for each task; after a restart a start may be sent twice, with the same webhook-id."""

    def __init__(self) -> None:
        self._sent: BoundedDict[str, _Sent] = BoundedDict(at_least=TRACKED_TASKS)

    def due_for(self, row: Status, *, now_ms: int) -> list[Delivery]:
        """Return the deliveries that a status row causes."""
        events, before = row["callback_events"], self._sent.get(row["id"], _Sent(False, 0, 0))
        if row["callback_url"] is None or not events or row["duplicate_of"] is not None:
            return []
        found: list[Delivery] = []
        now = before
        if "start" in events and not before.start and _started(row):
            found.append(_notification(row, "start", "start", now_ms))
            now = now._replace(start=True)
        moved = row["state"] == "processing" and row["progress"] > before.progress
        if "progress" in events and moved and now_ms - before.at_ms >= MIN_INTERVAL_MS:
            found.append(_notification(row, "progress", f"progress-{row['attempt']}-{row['progress']}", now_ms))
            now = now._replace(progress=row["progress"], at_ms=now_ms)
        if "expired" in events and row["state"] == "expired" and row["finished_ms"] is not None:
            found.append(_notification(row, "expired", "expired", now_ms))
        self._remember(row, now)
        return found

    def _remember(self, row: Status, sent: _Sent) -> None:
        if row["state"] in TERMINAL:
            self._sent.discard(row["id"])
        else:
            self._sent[row["id"]] = sent


def _started(row: Status) -> bool:
    if row["state"] == "processing":
        return True
    started_ms, finished_ms = row["started_ms"], row["finished_ms"]
    ended = row["state"] in ("completed", "failed") and started_ms is not None and finished_ms is not None
    return ended and (finished_ms or 0) - (started_ms or 0) < SHORT_CALL_MS


def _notification(row: Status, event: str, name: str, now_ms: int) -> Delivery:
    about: dict[str, Any] = {"state": row["state"], "attempt": row["attempt"], "progress": row["progress"]}
    if event == "start":
        about["started_ms"] = row["started_ms"]
    return from_status(row, event, name, progress_payload(row["id"], event, about), now_ms=now_ms)


class NotifiedBatches:
    """The batch ends seen in the present assignment of their partition, because rows are repeated."""

    def __init__(self) -> None:
        self._assignments: BoundedDict[str, object] = BoundedDict(at_least=TRACKED_BATCHES)

    def is_new(self, delivery_id: str, assignment: object) -> bool:
        """Add a batch end; return whether it had not been added with the same assignment object."""
        if self._assignments.get(delivery_id) is assignment:
            return False
        self._assignments[delivery_id] = assignment
        return True


def batch_notification(value: bytes, *, now_ms: int) -> Delivery | None:
    """Return the delivery that a batch row causes; rows of unfinished batches are not decoded.

    Raises FramingError and SchemaError.
    """
    if batch_state_of(value) not in BATCH_ENDED:
        return None
    row = BATCH.decode(value)
    url, at_ms = row["callback_url"], ended_ms(row)
    if not url or at_ms is None or now_ms - at_ms > RECENT_MS:
        return None
    event = f"batch.{row['state']}"
    return new_delivery(
        row["id"],
        event,
        name=event,
        url=url,
        owner=row["owner"],
        level=LEVEL,
        result_offset=None,
        payload=batch_payload(row["id"], event, at_ms=at_ms),
        now_ms=now_ms,
        traceparent=row["traceparent"],
    )


def batch_payload(batch_id: str, event: str, *, at_ms: int) -> bytes:
    """Render the event; its id is the same for every repetition."""
    event_id = sha256(f"{batch_id}/{event}".encode()).hexdigest()[:32]
    return orjson.dumps(
        {
            "id": f"evt_{event_id}",
            "object": "event",
            "created_at": at_ms // 1000,
            "type": event,
            "data": {"id": batch_id},
        }
    )
