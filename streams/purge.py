"""Cancel what waits in a queue, slice by slice: the lane goes on between two of them.

A slice ends with a purge event of its own, which says where the next one begins. It is durable before the slice's own
event is acknowledged, so a purge survives a crash at any moment, and a slice folded twice cancels nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from schemas.codec import STATUS, state_of
from schemas.events import event as build
from schemas.events import purge_continued
from schemas.partitioning import queue_number
from schemas.purge import REASON, OffsetBounds, extent
from schemas.records import Event
from streams.transaction import Transaction

log = logging.getLogger(__name__)

LOOK_ROWS = 2_000
"""Rows looked at in one slice: about 5 ms, for most are passed over by their first byte."""
CANCEL_ROWS = 250
"""Tasks cancelled in one slice: half of a full batch."""
WAIT_MS = 600_000
"""How long a purge waits for tasks that were accepted before it and are not folded yet; a lane that far behind is
stuck, and an event that waits goes round through Kafka with each batch."""

After = Callable[[int, bytes], Iterator[tuple[bytes, bytes]]]
"""Rows of a partition in the order of their keys, from a key on."""


def purge(
    fold: Transaction, rows_from: After, asked: Event, partition: int, *, folded: int, level: int, now_ms: int
) -> int:
    """Fold a purge event: cancel a slice of its queue's waiting tasks, and write the event for the next.

    `folded` is the offset below which every task record of the partition has been folded in an earlier batch. Returns
    how many were cancelled.
    """
    queue, bounds = asked["queue"], extent(asked["data"])
    if queue is None or bounds is None:
        fold.notes["unexpected_purge"] += 1
        return 0
    if folded < bounds.tasks_end and now_ms - asked["at_ms"] < WAIT_MS:
        fold.add(purge_continued(fold.prefix, asked, bounds, level=level, partition=partition, now_ms=now_ms))
        return 0
    prefix = f"TASK-{queue_number(queue)}-{level}-".encode()
    last, seen, cancelled = bounds.after, 0, 0
    for key, value in rows_from(partition, max(prefix, bounds.after.encode() + b"\x00")):
        if not key.startswith(prefix):
            break
        if seen == LOOK_ROWS or cancelled == CANCEL_ROWS:
            following = bounds._replace(after=last)
            fold.add(purge_continued(fold.prefix, asked, following, level=level, partition=partition, now_ms=now_ms))
            break
        last, seen = key.decode(), seen + 1
        if state_of(value) == "queued" and _meant(value, queue, bounds):
            fold.event(build("cancel", at_ms=now_ms, task_id=last, reason=REASON), partition=partition)
            cancelled += 1
    if cancelled:
        where = {"queue": queue, "level": level, "partition": partition}
        log.info("%d waiting tasks of queue %s purged", cancelled, queue, extra={"event": "queue_purged", **where})
    return cancelled


def _meant(value: bytes, queue: str, bounds: OffsetBounds) -> bool:
    """Tell whether a row is of the queue, whose number another may share, and was accepted before the purge."""
    row = STATUS.decode(value)
    return row["queue"] == queue and row["duplicate_of"] is None and 0 <= row["source_offset"] < bounds.tasks_end
