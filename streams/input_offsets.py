"""How far each input has been folded, counted by ourselves: what may be committed, and what was never delivered. Pure.

Faust's own account cannot be trusted around a rebalance: records that it read and threw away count as a gap that may
be committed over, and records of an older generation are acknowledged unseen. Here an offset is reached only when every
one before it was folded, and a partition that stands still below its end is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

InputPartition = tuple[str, int]
"""Topic and partition."""


class InputOffsets:
    """The next offset of each owned input partition."""

    def __init__(self) -> None:
        self._next: dict[InputPartition, int] = {}
        self._ahead: dict[InputPartition, dict[int, int]] = {}
        """Runs of offsets that are done behind one that is not: begin → the offset that follows."""
        self._behind_s: dict[InputPartition, float] = {}

    def reset(self, starts: Mapping[InputPartition, int]) -> None:
        """Begin anew with these partitions, at the offsets where reading begins."""
        self._next = dict(starts)
        self._ahead = {}
        self._behind_s = {}

    def done(self, partition: InputPartition, offset: int, *, since: int | None = None) -> None:
        """Note a record that is folded and durable; between `since` and its offset there is no other."""
        following = self._next.get(partition)
        if following is None or offset < following:
            return  # of a partition that is gone, or read once more
        self._behind_s.pop(partition, None)
        begin = max(following, offset if since is None else since)
        ahead = self._ahead.setdefault(partition, {})
        ahead[begin] = max(offset + 1, ahead.get(begin, 0))
        while (end := ahead.pop(following, None)) is not None:
            following = end
        self._next[partition] = following

    def skip(self, partition: InputPartition, offset: int) -> None:
        """Note that there is no record between what is done and an offset: marks of transactions take up offsets."""
        if offset > self._next.get(partition, offset):
            self._behind_s.pop(partition, None)
            self._next[partition] = offset
            self._join(partition)

    def _join(self, partition: InputPartition) -> None:
        """Take in what begins before the next offset; a record that is read twice may be told with another gap."""
        ahead, following = self._ahead.get(partition, {}), self._next[partition]
        while ahead and (begin := min(ahead)) <= following:
            following = max(following, ahead.pop(begin))
        self._next[partition] = following

    def committable(self, partition: InputPartition) -> int | None:
        """Return the offset up to which everything was folded."""
        return self._next.get(partition)

    def stalled(
        self, end: Callable[[InputPartition], int | None], *, now_s: float, timeout_s: float
    ) -> list[InputPartition]:
        """List partitions that were not at their end for a while, and have not moved since they were first seen so.

        Time in which nothing came does not count: the first record after it is below the end, too, until it is folded.
        """
        for partition in self._next:
            self._join(partition)
            last, following = end(partition), self._next[partition]
            if self._ahead.get(partition) or (last is not None and following != last):
                self._behind_s.setdefault(partition, now_s)
            else:
                self._behind_s.pop(partition, None)
        return [partition for partition, since_s in self._behind_s.items() if now_s - since_s > timeout_s]
