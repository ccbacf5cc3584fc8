"""How long the files of a batch that has ended are kept. Pure."""

from __future__ import annotations

from schemas.batches import BATCH_ENDED, Batch


def ended_at(batch: Batch) -> int | None:
    """Return when a batch ended."""
    if batch["state"] not in BATCH_ENDED:
        return None
    times = (batch["completed_ms"], batch["failed_ms"], batch["expired_ms"], batch["cancelled_ms"])
    return next((at for at in times if at is not None), batch["updated_ms"])


def output_expires_ms(batch: Batch, *, retention_s: int) -> int | None:
    """Return when its output and error file expire: as its creator asked, and no later than the batch itself.

    None while it has not ended.
    """
    ended_ms, asked_s = ended_at(batch), batch["output_expires_s"]
    retention_s = retention_s if asked_s is None else min(asked_s, retention_s)
    return None if ended_ms is None else ended_ms + retention_s * 1000


def outputs_expired(batch: Batch, *, now_ms: int) -> bool:
    """Tell whether its files have expired before the batch itself, which its scheduler removes with all there is."""
    ended_ms, asked_s = ended_at(batch), batch["output_expires_s"]
    return ended_ms is not None and asked_s is not None and ended_ms + asked_s * 1000 <= now_ms
