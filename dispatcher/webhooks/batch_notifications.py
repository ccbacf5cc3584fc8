"""What the end of a batch tells: one delivery per batch, thin as the Batch API has it. Pure."""

from __future__ import annotations

from hashlib import sha256

import orjson

from core.bounded_set import BoundedDict
from core.deliveries import new_delivery
from schemas.batches import BATCH_ENDED, Batch
from schemas.codec import BATCH, batch_state_of
from schemas.records import Delivery

LATELY_MS = 7 * 86_400_000
"""Rows stay for a month, deliveries for eight days: a group that has lost its place tells nobody again of old ends."""
LEVEL = 1
REMEMBERED = 10_000


class NotifiedBatches:
    """The batch ends that were seen in the current assignment of their partition; rows of one end are repeated."""

    def __init__(self) -> None:
        self._assignments: BoundedDict[str, object] = BoundedDict(at_least=REMEMBERED)

    def is_new(self, delivery_id: str, assignment: object) -> bool:
        """Add a batch end; return whether it had not been added with the same assignment object."""
        if self._assignments.get(delivery_id) is assignment:
            return False
        self._assignments[delivery_id] = assignment
        return True


def of_batch_row(value: bytes, *, now_ms: int) -> Delivery | None:
    """Return what a row tells; rows of batches that still run are passed over undecoded.

    Raises FramingError and SchemaError.
    """
    if batch_state_of(value) not in BATCH_ENDED:
        return None
    row = BATCH.decode(value)
    url, at_ms = row["callback_url"], ended_ms(row)
    if not url or now_ms - at_ms > LATELY_MS:
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
        payload=payload(row["id"], event, at_ms=at_ms),
        now_ms=now_ms,
        traceparent=row["traceparent"],
    )


def payload(batch_id: str, event: str, *, at_ms: int) -> bytes:
    """Render the event; its id is the same however often it is told."""
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


def ended_ms(row: Batch) -> int:
    """Return when a batch ended."""
    at = {
        "completed": row["completed_ms"],
        "failed": row["failed_ms"],
        "expired": row["expired_ms"],
        "cancelled": row["cancelled_ms"],
    }.get(row["state"])
    return row["updated_ms"] if at is None else at
