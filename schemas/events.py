"""Events: their fields, their records and the partitions they are written to. Pure.

Every event of events.LEVEL is built here. The functions that return records take `prefix`, the prefix of all topic
names. Headers differ by writer: workers use the plain kind as `ce_type`, all others `event.KIND`.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas import topics
from schemas.batches import Batch
from schemas.codec import EVENT
from schemas.common import BatchChange, BatchError, BatchPart, Blob
from schemas.headers import Headers, headers
from schemas.ids import TaskId, parse, parse_batch
from schemas.kafka_record import AddressedRecord, Record
from schemas.purge import OffsetBounds
from schemas.records import Event, EventKind, Outcome, Status, Work

BATCH_LEVEL = 1
"""Batches run on the offline level."""


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
    """Build an event; fields that its kind does not use keep their defaults."""
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
    """Build the batch part of an event; fields that its kind does not use keep their defaults."""
    return {
        "batch": batch,
        "total": total,
        "errors": errors or [],
        "part": part,
        "begin": begin,
        "lines": lines,
        "last": last,
    }


def task_event(
    prefix: str, task: Status | Work, happened: Event, *, partition: int, traceparent: bytes | None = None
) -> AddressedRecord:
    """Render what a worker reports about a task, for the task's partition."""
    kind, attempt = happened["kind"], happened["attempt"]
    percent = f"/{happened['progress']}" if kind == "progress" else ""
    described = headers(
        kind=kind,
        ce_id=f"{task['id']}/{attempt}/{kind}{percent}",
        at_ms=happened["at_ms"],
        queue=task["queue"],
        level=task["level"],
        attempt=attempt,
        traceparent=traceparent,
    )
    return _addressed(prefix, task["level"], partition, happened, described, key=task["id"])


def lease_claim(
    prefix: str, row: Status, *, worker: str, lease_ms: int, retries: int | None, at_ms: int
) -> AddressedRecord:
    """Render the claim of a pull worker for the current attempt of a task."""
    happened = event(
        "claimed",
        at_ms=at_ms,
        task_id=row["id"],
        attempt=row["attempt"],
        worker=worker,
        lease_ms=lease_ms,
        lease_retries=retries,
    )
    return task_event(prefix, row, happened, partition=parse(row["id"]).partition)


def lease_release(prefix: str, row: Status, *, at_ms: int) -> AddressedRecord:
    """Render the return of a task by the pull worker that holds it."""
    happened = event("released", at_ms=at_ms, task_id=row["id"], attempt=row["attempt"], worker=row["worker"] or "")
    return task_event(prefix, row, happened, partition=parse(row["id"]).partition)


def lease_outcome(prefix: str, row: Status, outcome: Outcome, *, at_ms: int) -> AddressedRecord:
    """Render the outcome of a task for the pull worker that holds it."""
    happened = event(
        "finished", at_ms=at_ms, task_id=row["id"], attempt=row["attempt"], worker=row["worker"], outcome=outcome
    )
    return task_event(prefix, row, happened, partition=parse(row["id"]).partition)


def worker_events(
    prefix: str,
    kind: EventKind,
    *,
    partitions: int,
    worker: str,
    at_ms: int,
    running: int,
    upstreams_up: int,
    reason: str | None = None,
) -> Iterator[AddressedRecord]:
    """Render a heartbeat or goodbye for every partition of both levels, so that each scheduler receives it."""
    happened = event(kind, at_ms=at_ms, worker=worker, running=running, upstreams_up=upstreams_up, reason=reason)
    described = headers(kind=kind, ce_id=f"{worker}/{at_ms}/{kind}", at_ms=at_ms)
    record = Record(worker.encode(), EVENT.encode(happened), described, at_ms)
    for level in range(len(topics.LEVELS)):
        for partition in range(partitions):
            yield AddressedRecord(prefix + topics.events(level), partition, record)


def scheduler_event(
    prefix: str, happened: Event, *, level: int, partition: int, key: str | None = None
) -> AddressedRecord:
    """Render what a scheduler writes to its own input: due timers, lost workers, returned tasks.

    Args:
        key: key of the record; the id of the task or batch by default.
    """
    key, kind, at_ms = key or happened["id"], happened["kind"], happened["at_ms"]
    described = headers(
        kind=f"event.{kind}",
        ce_id=f"{key}/{kind}/{happened['attempt']}/{at_ms}",
        at_ms=at_ms,
        level=level,
        attempt=happened["attempt"] or None,
    )
    return _addressed(prefix, level, partition, happened, described, key=key)


def cancel_event(prefix: str, task_id: TaskId, *, owner: str | None, reason: str, at_ms: int) -> AddressedRecord:
    """Render the request to cancel a task."""
    text, level = str(task_id), task_id.level
    happened = event("cancel", at_ms=at_ms, task_id=text, owner=owner, reason=reason)
    described = headers(kind="event.cancel", ce_id=f"{text}/cancel", at_ms=at_ms, level=level, owner=owner)
    return _addressed(prefix, level, task_id.partition, happened, described, key=text)


def batch_request_event(prefix: str, happened: Event, *, traceparent: bytes | None = None) -> AddressedRecord:
    """Render what a client requests of a batch: its creation or its cancellation."""
    batch_id, kind = happened["id"], happened["kind"]
    described = headers(
        kind=f"event.{kind}",
        ce_id=f"{batch_id}/{kind}",
        at_ms=happened["at_ms"],
        queue=happened["queue"],
        level=BATCH_LEVEL,
        owner=happened["owner"],
        traceparent=traceparent,
    )
    return _addressed_batch(prefix, happened, described)


def batch_progress_event(
    prefix: str, batch: Batch, kind: EventKind, changes: BatchChange, *, at_ms: int
) -> AddressedRecord:
    """Render what the batch service reports: the result of the validation, or a written output segment."""
    happened = event(kind, at_ms=at_ms, task_id=batch["id"], change=changes)
    described = headers(
        kind=kind,
        ce_id=f"{batch['id']}/{kind}/{at_ms}",
        at_ms=at_ms,
        queue=batch["queue"],
        level=BATCH_LEVEL,
        owner=batch["owner"],
    )
    return _addressed_batch(prefix, happened, described)


def batch_resume_event(prefix: str, batch: Batch, *, at_ms: int) -> AddressedRecord:
    """Render the event by which a scheduler continues to end the lines of a stopped batch."""
    kind: EventKind = "batch_due" if batch["ending"] == "expired" else "batch_cancel"
    happened = event(kind, at_ms=at_ms, task_id=batch["id"])
    described = headers(kind=f"event.{kind}", ce_id=f"{batch['id']}/{kind}/{at_ms}", at_ms=at_ms, level=BATCH_LEVEL)
    return _addressed_batch(prefix, happened, described)


def purge_event(
    prefix: str, queue: str, bounds: OffsetBounds, *, level: int, partition: int, at_ms: int
) -> AddressedRecord:
    """Render the request to cancel the queued tasks of one partition; `at_ms` is the time of the request."""
    happened = event("purge", at_ms=at_ms, queue=queue, data=bounds.encode())
    described = _purge_headers(queue, f"{at_ms}/{partition}", level=level, at_ms=at_ms)
    return _addressed(prefix, level, partition, happened, described, key=queue)


def purge_continued(
    prefix: str, purge: Event, bounds: OffsetBounds, *, level: int, partition: int, now_ms: int
) -> AddressedRecord:
    """Render the event by which a scheduler continues a purge; it keeps the time of the request."""
    queue = purge["queue"] or ""
    happened: Event = {**purge, "data": bounds.encode()}
    described = _purge_headers(queue, f"{purge['at_ms']}/{bounds.after}", level=level, at_ms=now_ms)
    return _addressed(prefix, level, partition, happened, described, key=queue, at_ms=now_ms)


def _purge_headers(queue: str, suffix: str, *, level: int, at_ms: int) -> Headers:
    return headers(kind="event.purge", ce_id=f"{queue}/purge/{suffix}", at_ms=at_ms, queue=queue, level=level)


def _addressed_batch(prefix: str, happened: Event, described: Headers) -> AddressedRecord:
    partition = parse_batch(happened["id"]).partition
    return _addressed(prefix, BATCH_LEVEL, partition, happened, described, key=happened["id"])


def _addressed(
    prefix: str,
    level: int,
    partition: int,
    happened: Event,
    described: Headers,
    *,
    key: str,
    at_ms: int | None = None,
) -> AddressedRecord:
    record = Record(key.encode(), EVENT.encode(happened), described, happened["at_ms"] if at_ms is None else at_ms)
    return AddressedRecord(prefix + topics.events(level), partition, record)
