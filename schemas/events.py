"""Build the records of the events topics."""

from __future__ import annotations

from schemas.common import BatchChange, BatchError, BatchPart, Blob
from schemas.records import Event, EventKind, Outcome


def event(
    kind: EventKind,
    *,
    at_ms: int,
    task_id: str = "",
    attempt: int = 0,
    worker: str | None = None,
    reason: str | None = None,
    owner: str | None = None,
    streamed: bool = False,
    outcome: Outcome | None = None,
    data: bytes | None = None,
    data_ref: Blob | None = None,
    running: int = 0,
    upstreams_up: int = 0,
    progress: int = 0,
    lease_ms: int = 0,
    lease_retries: int | None = None,
    queue: str | None = None,
    change: BatchChange | None = None,
) -> Event:
    """Build an event; what a kind does not use stays at its default."""
    return {
        "kind": kind,
        "at_ms": at_ms,
        "id": task_id,
        "attempt": attempt,
        "worker": worker,
        "reason": reason,
        "owner": owner,
        "streamed": streamed,
        "outcome": outcome,
        "data": data,
        "data_ref": data_ref,
        "running": running,
        "upstreams_up": upstreams_up,
        "progress": progress,
        "lease_ms": lease_ms,
        "lease_retries": lease_retries,
        "queue": queue,
        "change": change,
    }


def change(
    *,
    batch: bytes | None = None,
    total: int = 0,
    errors: list[BatchError] | None = None,
    part: BatchPart | None = None,
    begin: int = 0,
    lines: bytes = b"",
    last: bool = False,
) -> BatchChange:
    """Build what is said of a batch; what a kind does not use stays at its default."""
    return {
        "batch": batch,
        "total": total,
        "errors": errors or [],
        "part": part,
        "begin": begin,
        "lines": lines,
        "last": last,
    }
