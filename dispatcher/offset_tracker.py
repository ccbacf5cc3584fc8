"""Which offset of a partition may be committed. Pure.

A received record is safe once its claim is durable (from then on the worker's heartbeat protects it), or its outcome
is. Everything below the lowest record that is not safe may be committed.
"""

from __future__ import annotations

RUNNING, FINISHED = True, False


class OffsetTracker:
    """The offsets of one partition since its assignment; they are added in rising order."""

    __slots__ = ("_committed", "_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}
        self._next: int | None = None
        self._committed: int | None = None

    def is_next(self, offset: int) -> bool:
        """Return whether an offset is valid as the next one; not after a topic was re-created under the same name."""
        return self._next is None or offset >= self._next

    def add(self, offset: int) -> None:
        """Add a received record; it blocks the commit until it is claimed or completed."""
        if not self.is_next(offset):
            raise ValueError(f"offset {offset} was read when {self._next} was next")
        self._open[offset] = RUNNING
        self._next = offset + 1

    def advance(self, position: int) -> None:
        """Set the consumer's position, which skips offsets without records, such as transaction markers."""
        if self._next is not None:
            self._next = max(self._next, position)

    def finished(self, offset: int) -> None:
        """Mark a call as finished, with its outcome not yet durable: it needs no claim, but is not safe yet."""
        if offset in self._open:
            self._open[offset] = FINISHED

    def claimed(self, offset: int) -> None:
        """Mark the claim of a record as durable."""
        self._open.pop(offset, None)

    def completed(self, offset: int) -> None:
        """Mark a record as complete: its outcome is durable."""
        self._open.pop(offset, None)

    def unclaimed(self) -> list[int]:
        """Return the offsets that are running and unclaimed."""
        return [offset for offset, state in self._open.items() if state is RUNNING]

    def uncommitted(self) -> int:
        """Return the number of records that block the commit."""
        return len(self._open)

    def to_commit(self) -> int | None:
        """Return the offset to commit; None when it is the last committed one."""
        if self._next is None:
            return None
        point = next(iter(self._open), self._next)
        return point if self._committed is None or point > self._committed else None

    def committed(self, point: int) -> None:
        """Store an offset that the broker has confirmed."""
        if self._committed is None or point > self._committed:
            self._committed = point
