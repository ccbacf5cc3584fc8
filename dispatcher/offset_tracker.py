"""Which offset of a partition may be committed: pure bookkeeping of what was taken and what is safe by now.

A taken record is safe once Kafka knows what became of it: its claim is durable (from then on the worker's heartbeat
holds it), or its outcome is. Everything below the lowest record that is not safe may be committed.
"""

from __future__ import annotations

RUNNING, FINISHED = True, False


class OffsetTracker:
    """Bookkeeping of one partition from the moment it was assigned; offsets are taken in rising order."""

    __slots__ = ("_committed", "_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}
        self._next: int | None = None
        self._committed: int | None = None

    def is_next(self, offset: int) -> bool:
        """Tell whether this may be taken next; not so after a topic was made anew under the same name."""
        return self._next is None or offset >= self._next

    def add(self, offset: int) -> None:
        """Note a record that was read; it keeps the commit back until it is claimed or settled."""
        if not self.is_next(offset):
            raise ValueError(f"offset {offset} was read when {self._next} was next")
        self._open[offset] = RUNNING
        self._next = offset + 1

    def advance(self, position: int) -> None:
        """Note where reading goes on: behind the last record there may be offsets without one, as of transactions."""
        if self._next is not None:
            self._next = max(self._next, position)

    def finished(self, offset: int) -> None:
        """Note that the call is over and its outcome is on the way: it needs no claim, but is not safe yet."""
        if offset in self._open:
            self._open[offset] = FINISHED

    def claimed(self, offset: int) -> None:
        """Note that the claim is durable."""
        self._open.pop(offset, None)

    def completed(self, offset: int) -> None:
        """Note that nothing of this record can be lost any more."""
        self._open.pop(offset, None)

    def unclaimed(self) -> list[int]:
        """List what runs and has no claim yet."""
        return [offset for offset, state in self._open.items() if state is RUNNING]

    def uncommitted(self) -> int:
        """Count what keeps the commit back."""
        return len(self._open)

    def to_commit(self) -> int | None:
        """Return the offset to commit, None when it has not moved since the last commit."""
        if self._next is None:
            return None
        point = next(iter(self._open), self._next)
        return point if self._committed is None or point > self._committed else None

    def committed(self, point: int) -> None:
        """Note a commit that the broker confirmed."""
        if self._committed is None or point > self._committed:
            self._committed = point
