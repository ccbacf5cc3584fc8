"""A body of unknown size on its way in: held while it fits a record, written to the object store beyond that."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from core.storage.blobs import BlobWriter
from schemas.common import Blob

PIECE_BYTES = 262_144
"""Small reads are gathered to this size before they are written: every write costs a change of threads."""


class Spooled(NamedTuple):
    """Where a whole body is: exactly one of the two is set."""

    data: bytes | None
    data_ref: Blob | None


class Spool:
    """Takes a body piece by piece and never holds more than `inline_bytes` or two parts of the store's writer."""

    def __init__(self, open_writer: Callable[[], BlobWriter], *, inline_bytes: int) -> None:
        self._open_writer = open_writer
        self.inline_bytes = inline_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._writer: BlobWriter | None = None
        self.size = 0

    @property
    def text(self) -> bytes | None:
        """Return what was taken so far, while it fits a record."""
        return b"".join(self._held) if self.size <= self.inline_bytes else None

    async def take(self, data: bytes) -> None:
        """Append a piece; raises Unavailable."""
        self.size += len(data)
        self._held.append(data)
        self._held_bytes += len(data)
        if self.size > self.inline_bytes and self._held_bytes >= PIECE_BYTES:
            await self._spill()

    async def finish(self) -> Spooled:
        """Return where the whole body is; raises Unavailable."""
        if (text := self.text) is not None:
            return Spooled(text, None)
        writer = await self._spill()
        return Spooled(None, await writer.finish())

    def drop(self) -> None:
        """Forget the body, unless it is finished."""
        if self._writer is not None:
            self._writer.drop()

    async def _spill(self) -> BlobWriter:
        if self._writer is None:
            self._writer = self._open_writer()
        data = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        await self._writer.write(data)
        return self._writer
