"""Which partition owns a task. Pure.

Every queue uses a slice of the partitions, so that a flood in one queue stays in its slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from schemas.headers import find
from schemas.records import Task

FORWARDED = "x-forwarded"
"""Header of a direct record that the scheduler wrote again to its owner partition: `PARTITION/OFFSET` of the first."""
MAX_ENVELOPE_BYTES = 4_096
"""Maximum size of key and headers of a record that is forwarded.

The broker accepted the record compressed, so its uncompressed envelope may be many times larger than any limit.
"""


def stable_hash(text: str) -> int:
    """Return 32 bits that are the same in every process and version."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def home_partition(queue: str, spread: int, *, width: int, partitions: int) -> int:
    """Return the owner partition of a task.

    Args:
        spread: `key_spread` for a task with an idempotency key, else a counter.
        width: number of partitions that the queue uses; 0, or more than there are, means all of them.
    """
    slots = width if 0 < width < partitions else partitions
    return (stable_hash(queue) + spread % slots) % partitions


def key_spread(owner: str | None, key: str) -> int:
    """Return the spread of an idempotency key: duplicates share a partition, so one scheduler sees them in order."""
    return stable_hash(f"{owner}\n{key}")


def direct_partition(
    task: Task,
    *,
    partition: int,
    key: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    width: int,
    partitions: int,
) -> int:
    """Return the partition that processes a direct task; `partition` is the one that its producer wrote it to.

    These differ only for a task with an idempotency key and no id: its producer's partitioner does not know the
    project's routing. A record that was forwarded once, or whose key and headers are too large, is not forwarded.
    """
    idempotency_key = task["idempotency_key"]
    envelope = len(key or b"") + sum(len(name) + len(value or b"") for name, value in headers)
    if (
        idempotency_key is None
        or task["id"] is not None
        or find(headers, FORWARDED) is not None
        or envelope > MAX_ENVELOPE_BYTES
    ):
        return partition
    spread = key_spread(task["owner"], idempotency_key)
    return home_partition(task["queue"], spread, width=width, partitions=partitions)


def queue_number(queue: str) -> int:
    """Return the number of a queue in task ids.

    A hash, so that every process and direct producer can compute it. Two queues may share a number: ids stay unique,
    because serials are counted per number.
    """
    return stable_hash(queue)
