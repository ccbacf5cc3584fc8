"""Read the input file of a batch in slices and split it into lines; no connection is held open between slices."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import NamedTuple

from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from dispatcher.batches.request_line import MAX_LINE_BYTES, custom_id_of
from schemas.batches import Batch
from schemas.common import Blob

BOM = b"\xef\xbb\xbf"
SLICE_BYTES = 262_144
"""Some milliseconds of work: the event loop must not block for a file."""
YIELD_EVERY_BYTES = 16_384
"""Bytes after which the event loop runs other tasks: a slice of blank lines alone is 250 ms of work."""
PAGE_LINES = 1_000
"""Lines per page when their file cannot be read."""


class InputLine(NamedTuple):
    """One request of the file."""

    request: int
    """Number of the request, from 0: blank lines do not count."""
    number: int
    """Line number in the file, from 1, as editors show it."""
    text: bytes | None
    """None when the line is too long."""


class LineSplitter:
    """Splits a file that arrives in pieces; a line that is too long is not stored. Pure.

    Blank lines, a byte order mark, CRLF and a missing last line end are common in edited files; all of them are
    ignored.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._longest = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._too_long = False
        self._number = 0
        self._index = 0

    def feed(self, piece: bytes) -> list[InputLine]:
        """Add the next piece and return the requests that end in it."""
        *whole, rest = piece.split(b"\n")
        lines = []
        for end in whole:
            self._buffer(end)
            if (line := self._complete_line()) is not None:
                lines.append(line)
        self._buffer(rest)
        return lines

    def finish(self) -> list[InputLine]:
        """Return the last request when no line end follows it."""
        if not self._size:
            return []
        line = self._complete_line()
        return [] if line is None else [line]

    def _buffer(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._too_long, self._parts = True, []
        elif part:
            self._parts.append(part)

    def _complete_line(self) -> InputLine | None:
        text: bytes | None = None if self._too_long else b"".join(self._parts)
        self._parts, self._size, self._too_long = [], 0, False
        self._number += 1
        if text is not None:
            text = (text.removeprefix(BOM) if self._number == 1 else text).strip()
            if not text:
                return None
        self._index += 1
        return InputLine(self._index - 1, self._number, text)


class InputReader:
    """Reads the file once, from the beginning to the end."""

    def __init__(self, blobs: BlobStore, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._position = 0
        self._splitter = LineSplitter(max_bytes=MAX_LINE_BYTES)
        self._digest = sha256()
        self._exhausted = False

    async def next_lines(self) -> list[InputLine] | None:
        """Return the requests that end in the next slice, None after the last.

        Raises BlobMissing, BlobCorrupt and Unavailable; after Unavailable the same slice can be read again.
        """
        if self._exhausted:
            return None
        end = min(self._position + SLICE_BYTES, self._blob["size"])
        pieces = (
            [piece async for piece in self._blobs.part(self._blob["uri"], self._position, end)]
            if end > self._position
            else []
        )
        lines: list[InputLine] = []
        for piece in pieces:
            for at in range(0, len(piece), YIELD_EVERY_BYTES):
                lines += self._splitter.feed(piece[at : at + YIELD_EVERY_BYTES])
                await asyncio.sleep(0)
            self._digest.update(piece)
        self._position = end
        if end >= self._blob["size"]:
            self._exhausted = True
            lines += self._splitter.finish()
        return lines

    def verify_digest(self) -> None:
        """Raise BlobCorrupt unless the content that was read has the stored digest."""
        if self._digest.hexdigest() != self._blob["sha256"]:
            raise BlobCorrupt(f"the stored body {self._blob['uri']} does not have the digest it was written with")


class UnsubmittedLines:
    """The lines of a stopped batch that never became tasks, for its error file, from the first one on."""

    def __init__(self, blobs: BlobStore, batch: Batch) -> None:
        self._source: InputReader | None = InputReader(blobs, batch["input"])
        self._next = batch["fed"]
        self._total = batch["total"]

    @property
    def exhausted(self) -> bool:
        """Return whether all lines have been returned."""
        return self._next >= self._total

    async def next_page(self) -> list[tuple[int, str | None]]:
        """Return the next lines with their custom ids; raises Unavailable."""
        try:
            lines = await self._source.next_lines() if self._source is not None else None
        except (BlobMissing, BlobCorrupt):
            lines = None
        if lines is None:
            # the file is gone; its lines are counted all the same
            self._source = None
            found = range(self._next, min(self._next + PAGE_LINES, self._total))
            self._next = found.stop
            return [(request, None) for request in found]
        named = [(line.request, custom_id_of(line.text)) for line in lines if self._next <= line.request < self._total]
        self._next = named[-1][0] + 1 if named else self._next
        return named
