"""The input file of a batch, read a slice at a time: nothing is held open between two slices, however long that is."""

from __future__ import annotations

import asyncio
from hashlib import sha256

from core.storage.blobs import BlobCorrupt, BlobStore
from dispatcher.batches.line_splitter import InputLine, LineSplitter
from dispatcher.batches.request_line import MAX_LINE_BYTES
from schemas.common import Blob

SLICE_BYTES = 262_144
"""Some milliseconds of work: the event loop must not stand still for a file."""
YIELD_EVERY_BYTES = 16_384
"""After which others have their turn: a slice of blank lines alone is a quarter of a second of work."""


class InputReader:
    """Reads from the beginning to the end, once."""

    def __init__(self, blobs: BlobStore, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._position = 0
        self._splitter = LineSplitter(max_bytes=MAX_LINE_BYTES)
        self._digest = sha256()
        self._exhausted = False

    async def next_lines(self) -> list[InputLine] | None:
        """Return the requests that end in the next slice, None after the last.

        Raises BlobMissing, BlobCorrupt and Unavailable; after Unavailable the same slice can be asked for again.
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
        """Raise BlobCorrupt unless what was read up to the end is what was stored."""
        if self._digest.hexdigest() != self._blob["sha256"]:
            raise BlobCorrupt(f"the stored body {self._blob['uri']} does not have the digest it was written with")
