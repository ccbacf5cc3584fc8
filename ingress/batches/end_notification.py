"""Which callback of a batch can be sent again. Pure."""

from __future__ import annotations

from core.deliveries import BATCH_OUTCOMES
from core.errors import InvalidRequest
from schemas.batches import BATCH_ENDED, Batch
from schemas.records import Delivery


def end_notification(batch: Batch, found: list[Delivery], event: str | None) -> Delivery:
    """Return the delivery of a batch's end; raises InvalidRequest that says why there is none."""
    ends = [one for one in found if one["event"] in BATCH_OUTCOMES and event in (None, one["event"])]
    if ends:
        return ends[-1]
    batch_id, state = batch["id"], batch["state"]
    if not batch["callback_url"]:
        raise InvalidRequest(f"batch {batch_id} names no callback_url, and no setting does")
    if state not in BATCH_ENDED:
        raise InvalidRequest(f"batch {batch_id} has not ended yet")
    if event not in (None, f"batch.{state}"):
        raise InvalidRequest(f"batch {batch_id} has ended as {state} and told nobody of {event}", field="event")
    raise InvalidRequest(
        f"batch {batch_id} has told nobody of its end yet, which takes seconds, or did so more than eight days ago"
    )
