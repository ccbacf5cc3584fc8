"""Counts how far each input partition is processed: what may be committed, and what was never delivered. Pure.

Faust's own count is not reliable around a rebalance: it treats records that it read and discarded as a gap that may be
committed, and acknowledges records of an older generation. Here an offset is reached only once all offsets before it
are processed, and a partition that stays below its end is detected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

InputPartition = tuple[str, int]
"""Topic, partition."""


class InputOffsets:
    """The next offset of each owned input partition."""

    def __init__(self) -> None:
        self._next: dict[InputPartition, int] = {}
        self._ahead: dict[InputPartition, dict[int, int]] = {}
        """Processed ranges after an unprocessed offset: start → end."""
        self._behind_s: dict[InputPartition, float] = {}

    def reset(self, starts: Mapping[InputPartition, int]) -> None:
        """Replace the partitions; `starts` has the offset at which each is read."""
        self._next = dict(starts)
        self._ahead = {}
        self._behind_s = {}

    def done(self, partition: InputPartition, offset: int, *, since: int | None = None) -> None:
        """Mark a record as processed and durable; there is no record between `since` and its offset."""
        following = self._next.get(partition)
        if following is None or offset < following:
            return  # of a revoked partition, or read again
        self._behind_s.pop(partition, None)
        begin = max(following, offset if since is None else since)
        ahead = self._ahead.setdefault(partition, {})
        ahead[begin] = max(offset + 1, ahead.get(begin, 0))
        while (end := ahead.pop(following, None)) is not None:
            following = end
        self._next[partition] = following

    def skip(self, partition: InputPartition, offset: int) -> None:
        """Mark the offsets up to this one as processed: they have no records but, for example, transaction markers."""
        if offset > self._next.get(partition, offset):
            self._behind_s.pop(partition, None)
            self._next[partition] = offset
            self._join(partition)

    def _join(self, partition: InputPartition) -> None:
        """Merge ranges that begin before the next offset; a record read twice may have another gap before it."""
        ahead, following = self._ahead.get(partition, {}), self._next[partition]
        while ahead and (begin := min(ahead)) <= following:
            following = max(following, ahead.pop(begin))
        self._next[partition] = following

    def committable(self, partition: InputPartition) -> int | None:
        """Return the offset up to which everything is processed."""
        return self._next.get(partition)

    def stalled(
        self, end: Callable[[InputPartition], int | None], *, now_s: float, timeout_s: float
    ) -> list[InputPartition]:
        """Return partitions that have stayed below their end for longer than the timeout without progress.

        Idle time does not count: the first record after it is below the end, too, until it is processed.
        """
        for partition in self._next:
            self._join(partition)
            last, following = end(partition), self._next[partition]
            if self._ahead.get(partition) or (last is not None and following != last):
                self._behind_s.setdefault(partition, now_s)
            else:
                self._behind_s.pop(partition, None)
        return [partition for partition, since_s in self._behind_s.items() if now_s - since_s > timeout_s]
