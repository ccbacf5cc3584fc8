"""Batches with an Idempotency-Key: one per owner, queue and key within the idempotency window.

The id of such a batch is derived from owner, queue, key and time window. So duplicates have one id at every ingress:
when two ingresses write at once, the scheduler applies the first and ignores the second, and both return its row. No
table is needed, and a crash loses nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import blake2b

import orjson

from core.clock import epoch_ms
from core.errors import IdempotencyConflict, Unavailable, WriteUnconfirmed
from core.settings.models import Settings
from ingress.batches.commands import BatchCommands
from ingress.batches.directory import BatchDirectory
from ingress.batches.request import BatchRequest
from schemas.batches import Batch, BatchFile
from schemas.ids import MODE_CODES, SERIALS, TaskId
from schemas.partitioning import home_partition, key_spread
from schemas.records import Queue

DECISION_TIMEOUT_S = 10.0
"""A row appears within milliseconds; a scheduler that restarts after a crash may take this long."""
SKEW_S = 60
"""Clock skew: an ingress whose clock is ahead may be in the next window already."""
HEADER = "Idempotency-Key"
COMPARED = ("input_file_id", "endpoint", "completion_window", "metadata", "replace", "output_expires_s")


async def create_once(
    settings: Settings,
    commands: BatchCommands,
    directory: BatchDirectory,
    wanted: BatchRequest,
    find_input: Callable[[], Awaitable[BatchFile]],
    *,
    key: str,
    owner: str,
    name: str,
    traceparent: bytes | None = None,
) -> Batch:
    """Return the batch of a key, creating it when there is none; raises IdempotencyConflict and Unavailable."""
    queue = await commands.queue(name, wanted.endpoint, owner)
    now_ms, window_s = epoch_ms(), settings.streams.idempotency_window_s
    own, *others = (
        id_of_key(queue, owner, key, begin_s=begin_s, partitions=settings.kafka.partitions)
        for begin_s in window_starts(now_ms // 1000, window_s=window_s)
    )
    directory.check_read()
    for identity in (own, *others):
        first = directory.get(identity.batch())
        if first is not None and now_ms - first["created_ms"] < window_s * 1000:
            return _same(first, wanted, owner=owner)
    file = await find_input()
    try:
        made = await commands.create(wanted, file, owner=owner, queue=name, identity=own, traceparent=traceparent)
    except WriteUnconfirmed as error:
        raise Unavailable("Kafka did not confirm the batch in time; send it again with its Idempotency-Key") from error
    row = await directory.wait_until(made["id"], lambda _: True, seconds=DECISION_TIMEOUT_S)
    if row is None:
        raise Unavailable(
            "the batch was written but not yet compared with others of its Idempotency-Key; send it again with the key"
        )
    return _same(row, wanted, owner=owner)


def window_starts(now_s: int, *, window_s: int) -> tuple[int, ...]:
    """Return the starts of the windows in which the original may be; first the window of a new batch."""
    return tuple(at_s - at_s % window_s for at_s in (now_s, now_s - window_s, now_s + SKEW_S))


def id_of_key(queue: Queue, owner: str, key: str, *, begin_s: int, partitions: int) -> TaskId:
    """Return the identity of a key's batch in the window that begins at a second: the same at every ingress.

    52 bits of a digest replace the queue number and the serial of other ids.
    """
    scope = blake2b(orjson.dumps([queue["name"], owner, key]), digest_size=8).digest()
    spread, serial = divmod(int.from_bytes(scope), SERIALS)
    home = home_partition(queue["name"], key_spread(owner, key), width=queue["width"], partitions=partitions)
    return TaskId(spread & 0xFFFFFFFF, 1, MODE_CODES["batch"], begin_s, home, serial)


def may_have_key(identity: TaskId, *, window_s: int) -> bool:
    """Return whether an id may belong to a batch with a key; then its time is the start of a window."""
    return identity.time_s % window_s == 0


def _same(first: Batch, wanted: BatchRequest, *, owner: str) -> Batch:
    """Return the original batch of a key when its request was the same; raises IdempotencyConflict."""
    if first["owner"] != owner:  # a hash collision
        raise IdempotencyConflict(f"this {HEADER} cannot be used; choose another", field=HEADER)
    if any(first[name] != getattr(wanted, name) for name in COMPARED):  # type: ignore[literal-required]
        raise IdempotencyConflict(f"this {HEADER} was used for {first['id']} with another body", field=HEADER)
    return first
