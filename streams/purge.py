"""Purge of a queue: cancels its queued tasks slice by slice, so that other inputs are processed in between.

A slice ends with a purge event for the next slice. It is durable before the event of this slice is acknowledged, so a
purge survives a crash at any time, and a slice that is processed twice cancels nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

from schemas.codec import STATUS, state_of
from schemas.events import event as build
from schemas.events import purge_continued
from schemas.partitioning import queue_number
from schemas.purge import REASON, OffsetBounds, decode_bounds
from schemas.records import Event
from streams.transaction import Transaction

log = logging.getLogger(__name__)

ROWS_PER_STEP = 2_000
"""State records checked in one slice: about 5 ms, because most are skipped by their first byte."""
CANCELS_PER_STEP = 250
"""Tasks cancelled in one slice: half of a full batch."""
WAIT_MS = 600_000
"""Maximum wait for tasks that were accepted before the purge and are not processed yet. A scheduler that far behind is
stalled, and the waiting event is written again with each batch."""

ScanFrom = Callable[[int, bytes], Iterator[tuple[bytes, bytes]]]
"""Iterates over a partition in key order, starting at a key."""


def purge(
    transaction: Transaction,
    rows_from: ScanFrom,
    asked: Event,
    partition: int,
    *,
    processed: int,
    level: int,
    now_ms: int,
) -> int:
    """Apply a purge event: cancel a slice of the queue's tasks, and add the event for the next slice.

    `processed` is the offset up to which the partition's tasks were processed in earlier batches. Returns how many
    tasks were cancelled.
    """
    queue, bounds = asked["queue"], decode_bounds(asked["data"])
    if queue is None or bounds is None:
        transaction.reasons["unexpected_purge"] += 1
        return 0
    continued = partial(purge_continued, transaction.prefix, asked, level=level, partition=partition, now_ms=now_ms)
    if processed < bounds.tasks_end and now_ms - asked["at_ms"] < WAIT_MS:
        transaction.add(continued(bounds))
        return 0
    prefix = f"TASK-{queue_number(queue)}-{level}-".encode()
    last, seen, cancelled = bounds.after, 0, 0
    for key, value in rows_from(partition, max(prefix, bounds.after.encode() + b"\x00")):
        if not key.startswith(prefix):
            break
        if seen == ROWS_PER_STEP or cancelled == CANCELS_PER_STEP:
            transaction.add(continued(bounds._replace(after=last)))
            break
        last, seen = key.decode(), seen + 1
        if state_of(value) == "queued" and _matches(value, queue, bounds):
            transaction.event(build("cancel", at_ms=now_ms, task_id=last, reason=REASON), partition=partition)
            cancelled += 1
    if cancelled:
        where = {"queue": queue, "level": level, "partition": partition}
        log.info("purged %d queued tasks of queue %s", cancelled, queue, extra={"event": "queue_purged", **where})
    return cancelled


def _matches(value: bytes, queue: str, bounds: OffsetBounds) -> bool:
    """Return whether a task of the queue, whose number another queue may share, was accepted before the purge."""
    row = STATUS.decode(value)
    return row["queue"] == queue and row["duplicate_of"] is None and 0 <= row["source_offset"] < bounds.tasks_end
