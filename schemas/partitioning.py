"""Which partition a task lives in: every queue owns a slice of the partitions, so one queue's flood stays there."""

from __future__ import annotations

from hashlib import blake2b


def stable_hash(text: str) -> int:
    """Return 32 bits that are the same in every process and version."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def home_partition(queue: str, spread: int, *, width: int, partitions: int) -> int:
    """Return the home of a task; `spread` is a hash of its idempotency key, or a counter when it has none.

    A width of 0, or one above the partition count, uses them all.
    """
    slots = width if 0 < width < partitions else partitions
    return (stable_hash(queue) + spread % slots) % partitions


def queue_number(queue: str) -> int:
    """Return the number that task ids carry for a queue.

    A hash, so that every process and every direct producer knows it without asking. Two queues that share a number
    share nothing else: ids stay unique because the serial is counted per number.
    """
    return stable_hash(queue)
