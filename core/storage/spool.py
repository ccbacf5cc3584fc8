"""Buffer a body of unknown size in memory while it fits a record, and in the object store beyond that."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from core.storage.blobs import BlobWriter
from schemas.common import Blob

WRITE_BYTES = 262_144
"""Small reads are collected to this size before a write, because every write switches threads."""


class Spooled(NamedTuple):
    """Location of a complete body: exactly one of the two is set."""

    data: bytes | None
    data_ref: Blob | None


class Spool:
    """Collects a body and holds at most `inline_bytes` or two parts of the store's writer in memory."""

    def __init__(self, open_writer: Callable[[], BlobWriter], *, inline_bytes: int) -> None:
        self._open_writer = open_writer
        self.inline_bytes = inline_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._writer: BlobWriter | None = None
        self.size = 0

    @property
    def text(self) -> bytes | None:
        """Return the bytes received so far, while they fit a record."""
        return b"".join(self._held) if self.size <= self.inline_bytes else None

    async def write(self, data: bytes) -> None:
        """Append bytes; raises Unavailable."""
        self.size += len(data)
        self._held.append(data)
        self._held_bytes += len(data)
        if self.size > self.inline_bytes and self._held_bytes >= WRITE_BYTES:
            await self._spill()

    async def finish(self) -> Spooled:
        """Return the location of the complete body; raises Unavailable."""
        if (text := self.text) is not None:
            return Spooled(text, None)
        writer = await self._spill()
        return Spooled(None, await writer.finish())

    def discard(self) -> None:
        """Discard the body, unless it is finished."""
        if self._writer is not None:
            self._writer.abort()

    async def _spill(self) -> BlobWriter:
        if self._writer is None:
            self._writer = self._open_writer()
        data = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        await self._writer.write(data)
        return self._writer
