"""Initial state record of a batch: a validated proposal, without the fields that only the scheduler sets. Pure."""

from __future__ import annotations

from collections.abc import Callable

from schemas.batches import Batch, ended_ms, initial_progress
from schemas.codec import BATCH, SchemaError
from schemas.common import BatchError
from schemas.framing import FramingError
from schemas.ids import EPOCH_S, IdError, parse_batch
from schemas.records import Event
from schemas.validation import MAX_CREATED_MS, MAX_TEXT, Invalid, check_callback, check_endpoint, check_queue

MAX_PROPOSAL_BYTES = 262_144
"""The state record grows by two bitmaps and the list of segments; together they must fit a record of 1 MB."""
MAX_PARTS = 15_000
"""About 40 bytes each; at 4 MB per segment this allows 60 GB of output. A larger list would exceed the record limit,
which ends the scheduler."""
MAX_ERRORS = 100
MAX_ERROR_TEXT = 1_000


def decode_proposal(event: Event, *, partition: int, max_bytes: int = MAX_PROPOSAL_BYTES) -> Batch:
    """Decode the batch that batch_created proposes; raises Invalid."""
    proposed = event["change"]["batch"] if event["change"] is not None else None
    if proposed is None:
        raise Invalid("change", "batch_created needs the proposed batch")
    if len(proposed) > min(max_bytes, MAX_PROPOSAL_BYTES):
        raise Invalid("change", f"the batch has {len(proposed)} bytes, the limit is {MAX_PROPOSAL_BYTES}")
    try:
        batch = BATCH.decode(proposed)
        owner = parse_batch(batch["id"]).partition
    except (FramingError, SchemaError, IdError) as error:
        raise Invalid("change", str(error)) from error
    if batch["id"] != event["id"] or owner != partition:
        raise Invalid(
            "id", f"{batch['id']} is not the batch of this event, or does not belong to partition {partition}"
        )
    _check(batch)
    return batch


def _check(batch: Batch) -> None:
    """Raise Invalid for a batch whose lines could not become tasks."""
    check_queue(batch["queue"])
    check_endpoint(batch["endpoint"])
    if not 0 <= batch["queue_number"] < 1 << 32:
        raise Invalid("queue_number", "queue_number must have 32 bits")
    if not EPOCH_S * 1000 <= batch["created_ms"] < batch["expires_ms"] <= MAX_CREATED_MS:
        raise Invalid("expires_ms", "expires_ms must be after created_ms, both in epoch ms before the year 2100")
    if len(batch["owner"]) > MAX_TEXT:
        raise Invalid("owner", f"owner must be at most {MAX_TEXT} characters")
    if batch["callback_url"] is not None:
        check_callback(batch["callback_url"])


def initial_batch(proposed: Batch, *, offset: int, taken: Callable[[int], bool]) -> Batch:
    """Return the initial state record; `taken` tells which seconds other batches with the queue number use."""
    stamp_s = proposed["created_ms"] // 1000
    while taken(stamp_s):
        stamp_s += 1
    return {
        **proposed,
        "state": "validating",
        "stamp_s": stamp_s,
        **initial_progress(),
        "source_offset": offset,
    }


def errors_of(event: Event) -> list[BatchError]:
    """Return the validation errors of batch_invalid, limited in number and length."""
    found = event["change"]["errors"] if event["change"] is not None else []
    return [
        {
            "code": error["code"][:MAX_TEXT],
            "message": error["message"][:MAX_ERROR_TEXT],
            "param": None if error["param"] is None else error["param"][:MAX_TEXT],
            "line": error["line"],
        }
        for error in found[:MAX_ERRORS]
    ]


def due_ms(batch: Batch, *, retention_ms: int) -> int | None:
    """Return when a batch expires or, once it has ended, is removed; None while neither applies."""
    if batch["state"] in ("validating", "in_progress"):
        return batch["expires_ms"]
    end_ms = ended_ms(batch)
    return None if end_ms is None else end_ms + retention_ms
