"""What a writer has of one batch between two pieces: where it is in the log, which lines it holds."""

from __future__ import annotations

from typing import NamedTuple

from dispatcher.batches.output_lines import LINE_BYTES, OutputLine
from dispatcher.batches.unsubmitted_lines import UnsubmittedLines
from schemas import bitmap
from schemas.batches import Batch
from schemas.common import BatchPart

RECENT_PARTS = 8
"""A part that was taken is among the last of its row: nobody else writes, but for one who was frozen meanwhile."""


class SentSegment(NamedTuple):
    """A part that the scheduler has been asked to take."""

    part: BatchPart
    at_s: float
    before: bytes
    """What was written before it."""


class SegmentBuilder:
    """The next piece of a batch; positions are offsets of the results topic."""

    def __init__(self, row: Batch) -> None:
        self.begin = row["written_to"]
        """Where the next piece begins; None before the first result, also when lines that never ran are written."""
        self.position = row["written_to"]
        """The next record to read."""
        self.written = row["written"]
        self.lines: dict[int, OutputLine] = {}
        self.size = 0
        self.since_s = 0.0
        self.sent: SentSegment | None = None
        self.unsubmitted: UnsubmittedLines | None = None
        """The lines that never ran, once they are being added."""

    def continues(self, row: Batch) -> bool:
        """Take over what a newer row says; False when it says something else than what is here."""
        if self.sent is not None:
            if any(part["token"] == self.sent.part["token"] for part in row["parts"][-RECENT_PARTS:]):
                self.begin, self.sent = row["written_to"], None
                self.written = row["written"]
                return (self.begin or 0) <= (self.position or 0)
            return row["written_to"] == self.begin and row["written"] == self.sent.before
        if self.begin is None and row["written_to"] is not None and not self.lines:
            self.begin = self.position = row["written_to"]
            return True
        return row["written_to"] == self.begin and row["written"] == self.written

    def add(self, request: int, line: OutputLine, *, now_s: float) -> None:
        """Take a line, unless it is in a piece already: the log may hold a result twice."""
        if self.contains(request):
            return
        if not self.lines:
            self.since_s = now_s
        self.lines[request] = line
        self.size += line.size + LINE_BYTES

    def contains(self, request: int) -> bool:
        """Tell whether a line is here or in a piece."""
        return request in self.lines or bitmap.has(self.written, request)

    def count(self, below: int) -> int:
        """Return how many of the first lines are here or in pieces."""
        here = bitmap.union(self.written, bitmap.of(self.lines))
        return (int.from_bytes(here, "little") & (1 << below) - 1).bit_count()

    def mark_sent(self, sent: SentSegment) -> None:
        """Begin the next piece behind one that was sent."""
        self.written = bitmap.union(self.written, bitmap.of(self.lines))
        self.lines, self.size, self.sent = {}, 0, sent
