"""Store the pieces of output and error files, and remove those that no row names."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

from core.embedding import one_line
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore, BlobWriter
from dispatcher.batches.output_lines import OutputLine, about_bytes, body_members
from schemas.batches import PIECES, Batch, segments_of
from schemas.common import Blob
from schemas.media_types import is_json

log = logging.getLogger(__name__)

WRITE_BYTES = 262_144
WHOLE_BYTES = 4_194_304
"""Stored answers up to this size are looked at; a larger one is passed on a bit at a time as what its type says."""


class BodyMissing(Exception):
    """The stored answer to a line cannot be read any more."""

    def __init__(self, request: int, code: str) -> None:
        super().__init__(code)
        self.request = request
        self.code = code


async def store(blobs: BlobStore, name: str, lines: Mapping[int, OutputLine]) -> int:
    """Keep lines under a name and return their size; nothing is stored when there are none.

    Raises Unavailable, and BodyMissing for the first line whose answer is lost.
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


async def tidy(blobs: BlobStore, batch_id: str, kept: Iterable[str]) -> int:
    """Remove the pieces of a batch but for some; returns how many were removed. Raises Unavailable."""
    names, count = set(kept), 0
    async for found in blobs.listed(f"{PIECES}{batch_id}"):
        for one in found:
            if one.name not in names:
                await blobs.remove(one.name)
                count += 1
    if count:
        log.info(
            "removed %d pieces of batch %s",
            count,
            batch_id,
            extra={"event": "batch_pieces_removed", "batch_id": batch_id},
        )
    return count


def names_of(batch: Batch) -> frozenset[str]:
    """Return the names of the pieces that a batch consists of."""
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
    """Encode as a whole what comes in pieces: three bytes become four characters."""
    rest = b""
    async for piece in pieces:
        data = rest + piece
        whole = len(data) - len(data) % 3
        rest = data[whole:]
        yield b64encode(data[:whole])
    yield b64encode(rest)


class _Buffer:
    """Gathers short lines, for a write of some hundred bytes costs as much as one of many."""

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
