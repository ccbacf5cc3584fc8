"""Segments of output and error files: the lines collected for the next one, writing it, and deleting orphans."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import NamedTuple

from core.embedding import one_line
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore, BlobWriter
from dispatcher.batches.input_reader import UnsubmittedLines
from dispatcher.batches.output_lines import LINE_BYTES, OutputLine, about_bytes, body_members
from schemas import bitmap
from schemas.batches import SEGMENT_PREFIX, Batch, segments_of
from schemas.common import BatchPart, Blob
from schemas.media_types import is_json

log = logging.getLogger(__name__)

RECENT_PARTS = 8
"""An accepted part is among the last of its row: there is one writer, except after a pause of its process."""
WRITE_BYTES = 262_144
WHOLE_BYTES = 4_194_304
"""Stored bodies up to this size are inspected; a larger one is copied in pieces as its media type says."""


class SentSegment(NamedTuple):
    """A part that was sent to the scheduler to be accepted."""

    part: BatchPart
    at_s: float
    before: bytes
    """Bitmap of the lines written before it."""


class SegmentBuilder:
    """The next segment of a batch; positions are offsets of the results topic."""

    def __init__(self, row: Batch) -> None:
        self.begin = row["written_to"]
        """Where the next segment begins; None before the first result, also while unsubmitted lines are written."""
        self.position = row["written_to"]
        """The next record to read."""
        self.written = row["written"]
        self.lines: dict[int, OutputLine] = {}
        self.size = 0
        self.since_s = 0.0
        self.sent: SentSegment | None = None
        self.unsubmitted: UnsubmittedLines | None = None
        """The unsubmitted lines, once they are being added."""

    def continues(self, row: Batch) -> bool:
        """Apply a newer row; False when it contradicts the present state."""
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
        """Add a line, unless it is in a segment already: the log may contain a result twice."""
        if self.contains(request):
            return
        if not self.lines:
            self.since_s = now_s
        self.lines[request] = line
        self.size += line.size + LINE_BYTES

    def contains(self, request: int) -> bool:
        """Return whether a line is here or in a segment."""
        return request in self.lines or bitmap.has(self.written, request)

    def count(self, below: int) -> int:
        """Return how many of the first lines are here or in segments."""
        here = bitmap.union(self.written, bitmap.of(self.lines))
        return (int.from_bytes(here, "little") & (1 << below) - 1).bit_count()

    def mark_sent(self, sent: SentSegment) -> None:
        """Begin the next segment, after one that was sent."""
        self.written = bitmap.union(self.written, bitmap.of(self.lines))
        self.lines, self.size, self.sent = {}, 0, sent


class BodyMissing(Exception):
    """The stored response of a line cannot be read."""

    def __init__(self, request: int, code: str) -> None:
        super().__init__(code)
        self.request = request
        self.code = code


async def write_segment(blobs: BlobStore, name: str, lines: Mapping[int, OutputLine]) -> int:
    """Write lines to an object and return its size; nothing is written when there are none.

    Raises Unavailable, and BodyMissing for the first line whose stored body is missing.
    """
    if not lines:
        return 0
    async with blobs.writer(name, media_type="application/jsonl") as writer:
        buffer = _Buffer(writer)
        for request, line in lines.items():
            await buffer.add(line.head)
            if line.stored is None:
                await buffer.add(line.body)
            else:
                try:
                    await _add_stored(buffer, blobs, line.stored, line.content_type)
                except (BlobMissing, BlobCorrupt) as error:
                    raise BodyMissing(request, error.code) from error
            await buffer.add(line.tail)
        await buffer.flush()
        return (await writer.finish())["size"]


async def delete_orphans(blobs: BlobStore, batch_id: str, names: Iterable[str]) -> int:
    """Delete the segments of a batch except those with the given names; returns how many. Raises Unavailable."""
    retained, count = set(names), 0
    async for found in blobs.listed(f"{SEGMENT_PREFIX}{batch_id}"):
        for one in found:
            if one.name not in retained:
                await blobs.remove(one.name)
                count += 1
    if count:
        log.info(
            "deleted %d segments of batch %s",
            count,
            batch_id,
            extra={"event": "batch_segments_deleted", "batch_id": batch_id},
        )
    return count


def segment_names_of(batch: Batch) -> frozenset[str]:
    """Return the names of the segments of a batch."""
    return frozenset(piece.name for errors in (False, True) for piece in segments_of(batch, errors=errors))


async def _add_stored(buffer: _Buffer, blobs: BlobStore, blob: Blob, content_type: str) -> None:
    if blob["size"] <= WHOLE_BYTES:
        for part in body_members(await blobs.get(blob), content_type):
            await buffer.add(part)
        return
    pieces = await blobs.open(blob)
    if is_json(content_type):
        async for piece in pieces:
            await buffer.add(one_line(piece))
        return
    await buffer.add(b'"')
    async for piece in _in_base64(pieces):
        await buffer.add(piece)
    await buffer.add(b'"' + about_bytes(content_type))


async def _in_base64(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Encode pieces as one text: three bytes become four characters."""
    rest = b""
    async for piece in pieces:
        data = rest + piece
        whole = len(data) - len(data) % 3
        rest = data[whole:]
        yield b64encode(data[:whole])
    yield b64encode(rest)


class _Buffer:
    """Collects short lines: a write of some hundred bytes costs as much as one of many."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._held: list[bytes] = []
        self._size = 0

    async def add(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        data = b"".join(self._held)
        self._held, self._size = [], 0
        if data:
            await self._writer.write(data)
