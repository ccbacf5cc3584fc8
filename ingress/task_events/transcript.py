"""The frames of one task, assembled from chunk records and the result, and the ids by which clients resume. Pure.

One transcript serves all viewers of a task; each viewer holds the number of the next frame that it needs. Frames at the
front are evicted when there are many: a viewer that still needs them reads them from the log.

A frame id names the run and counts its frames, so it is the same whether a frame comes from a chunk record or from the
stored result, which has no offsets; any ingress can resume from it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from core.errors import InvalidRequest
from core.sse import named
from ingress.http import sse
from schemas.partitioning import stable_hash
from schemas.records import Chunk, Result

_POSITION = re.compile(r"(?:([1-9][0-9]{0,8}-[0-9a-f]{8})-)?([0-9]{1,9})", re.ASCII)


class Run(NamedTuple):
    """One attempt by one worker; its frames form one text."""

    attempt: int
    worker: str | None

    @property
    def tag(self) -> str:
        """Return its name in ids; the worker is hashed, because its name is internal."""
        return f"{self.attempt}-{stable_hash(self.worker or ''):08x}"


class EventPosition(NamedTuple):
    """Which run a client reads and how many of its frames it has."""

    tag: str | None
    """None when the client gave a bare number of frames: then any run matches."""
    frames: int


START = EventPosition(None, 0)
END = EventPosition("end", 0)
"""Of a client that received the end. A browser reconnects after it every three seconds unless it is closed."""


def parse(text: str, *, field: str) -> EventPosition:
    """Parse a frame id or a bare number of frames; raises InvalidRequest."""
    if text == END.tag:
        return END
    match = _POSITION.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"{field} must be the id of a frame of this task, such as 1-0a1b2c3d-17 or end, or the number of data "
            "frames that were read before",
            field=field,
        )
    return EventPosition(match[1], int(match[2]))


WINDOW_BYTES = 524_288
"""Buffered part of a running text: thousands of tokens, for viewers that are behind."""
PART_BYTES = 65_536
"""Most bytes that a viewer gets at once: about a socket buffer."""
PART_FRAMES = 1_000
POSITION_INTERVAL_BYTES = 65_536
MAX_OUT_OF_ORDER = 64
"""Out-of-order records that are buffered; with larger gaps the result is awaited."""


class ReplayPosition(NamedTuple):
    """A position in the topic: the record at this offset starts with this frame."""

    frame: int
    seq: int
    offset: int


class TranscriptPart(NamedTuple):
    """Encoded frames, and the number of the frame after them."""

    data: bytes
    next: int


NOTHING = (-1, TranscriptPart(b"", -1))


class Transcript:
    """Frames of the current run by number, from 0."""

    def __init__(self, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._window = window_bytes
        self.run: Run | None = None
        self.first = 0
        """Number of the first buffered frame."""
        self.settled = False
        """Whether the result is known; later chunks are ignored."""
        self.whole = False
        """Whether the last frame has been added."""
        self.last = b""
        self._left: set[Run] = set()
        self._frames: list[bytes] = []
        self._early: dict[int, tuple[list[bytes], int]] = {}
        self._marks: list[ReplayPosition] = []
        self._taken = NOTHING
        self._next_seq = self._buffered = self._since_mark = 0

    @property
    def end(self) -> int:
        """Return the number of the next frame to arrive."""
        return self.first + len(self._frames)

    def add(self, chunk: Chunk, offset: int) -> bool:
        """Add a record in the order of the topic; return whether it added frames.

        A later run replaces an earlier one: its work record was delivered again. A record may arrive twice, and a
        record of a replaced run, whose worker counted as lost, is ignored.
        """
        run = Run(chunk["attempt"], chunk["worker"])
        if self.settled or (run != self.run and not self._turn_to(run)):
            return False
        if chunk["seq"] >= self._next_seq and len(self._early) < MAX_OUT_OF_ORDER:
            self._early[chunk["seq"]] = (named(chunk["frames"], chunk["events"]), offset)
        before = self.end
        while (early := self._early.pop(self._next_seq, None)) is not None:
            self._append(*early)
        return self.end > before

    def finish(self, result: Result | None, text: Sequence[bytes] | None) -> None:
        """Apply the result: the final run, and its whole text where it is stored.

        Without the text the frames stay as they are; so do those of a task that did not complete.
        """
        self.settled = True
        self._taken = NOTHING
        completed = result is not None and result["state"] == "completed"
        run = None if result is None else Run(result["attempt"], result["worker"])
        if text is not None:
            self.run, self.first, self._frames = run, 0, list(text)
            self.last = text[-1] if text else b""
        elif completed and run != self.run:
            self.run = run
            self._clear()
        records = result["chunks"] if result is not None else 0
        self.whole = text is not None or (completed and self._next_seq >= records)

    def take(self, frame: int) -> TranscriptPart:
        """Return frames from a number on, about PART_BYTES; viewers at the same position share the bytes."""
        if self._taken[0] != frame or self._taken[1].next == frame:
            begin = max(frame - self.first, 0)
            self._taken = (frame, self.render(frame, self._frames[begin : begin + PART_FRAMES]))
        return self._taken[1]

    def render(self, frame: int, payloads: Sequence[bytes]) -> TranscriptPart:
        """Encode frames: an id, and the upstream's payload as data."""
        tag = b"id: " + (self.run.tag.encode() if self.run is not None else b"")
        parts: list[bytes] = []
        size = 0
        for payload in payloads:
            frame += 1
            parts.append(b"%b-%d\n%b" % (tag, frame, sse.frame(payload)))
            size += len(payload)
            if size >= PART_BYTES:
                break
        return TranscriptPart(b"".join(parts), frame)

    def mark(self, frame: int) -> ReplayPosition | None:
        """Return the position from which an evicted frame can be reread."""
        at = bisect_right(self._marks, frame, key=lambda mark: mark.frame)
        return self._marks[at - 1] if at else None

    def _turn_to(self, run: Run) -> bool:
        if run in self._left or (self.run is not None and run.attempt < self.run.attempt):
            return False
        if self.run is not None:
            self._left.add(self.run)
        self.run = run
        self._clear()
        return True

    def _append(self, frames: Sequence[bytes], offset: int) -> None:
        if not self._marks or self._since_mark >= POSITION_INTERVAL_BYTES:
            self._marks.append(ReplayPosition(self.end, self._next_seq, offset))
            self._since_mark = 0
        size = sum(map(len, frames))
        self._next_seq += 1
        self._frames += frames
        self._since_mark += size
        self._buffered += size
        if frames:
            self.last = frames[-1]
        if self._buffered > 2 * self._window:
            self._evict()

    def _evict(self) -> None:
        """Evict frames at the front down to one window; rare, because the rest has to be moved."""
        evicted = 0
        while self._buffered > self._window and evicted < len(self._frames) - 1:
            self._buffered -= len(self._frames[evicted])
            evicted += 1
        del self._frames[:evicted]
        self.first += evicted

    def _clear(self) -> None:
        self._frames, self._marks, self._taken = [], [], NOTHING
        self._early.clear()
        self._next_seq = self._buffered = self._since_mark = self.first = 0
        self.last = b""
