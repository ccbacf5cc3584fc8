"""Bodies that are too large for a record: streamed from and to the object store, never held in memory as a whole."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from typing import NamedTuple

from core.errors import Unavailable
from core.retry import retry_unavailable
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from core.storage.spool import Spool
from core.usage import UsageFinder, usage_of
from dispatcher.inference.outcome import Failure
from dispatcher.inference.upstream import CallError
from schemas.common import Blob, Usage
from schemas.records import Work

TRIES = 4
RETRY_DELAY_S = 0.5


class RequestBody:
    """The body of one request, opened again for every call; `failure` is the error that cut the last one short."""

    def __init__(self, blobs: BlobStore, data: bytes, reference: Blob | None) -> None:
        self._blobs = blobs
        self._data = data
        self._reference = reference
        self.size = len(data) if reference is None else reference["size"]
        self.failure: CallError | None = None

    async def open(self) -> bytes | AsyncGenerator[bytes, None]:
        """Return the bytes, or a stream of them; raises CallError."""
        reference = self._reference
        if reference is None:
            return self._data
        try:
            return self._tracked(
                await retry_unavailable(lambda: self._blobs.open(reference), delay_s=RETRY_DELAY_S, tries=TRIES)
            )
        except (BlobMissing, BlobCorrupt, Unavailable) as error:
            raise _lost(error) from error

    async def _tracked(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Store a failure: the HTTP client reports it as a broken connection."""
        try:
            async for piece in pieces:
                yield piece
        except (BlobCorrupt, Unavailable) as error:
            self.failure = _lost(error)
            raise


class StoredBody(NamedTuple):
    """A response body: in the record, or in the object store."""

    body: bytes | None
    body_ref: Blob | None
    usage: Usage | None


class ResponseBody:
    """Receives a response in pieces; in one that is too large for memory, token counts are searched on the way."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._finder: UsageFinder | None = None

    @property
    def size(self) -> int:
        """Return the number of bytes received."""
        return self._spool.size

    async def write(self, data: bytes) -> None:
        """Append a piece; raises CallError when the object store is unavailable."""
        if self._finder is None and self._spool.size + len(data) > self._spool.inline_bytes:
            self._finder = UsageFinder()
            self._finder.feed(self._spool.text or b"")
        if self._finder is not None:
            self._finder.feed(data)
        try:
            await self._spool.write(data)
        except Unavailable as error:
            raise CallError(Failure.STORAGE, error.message) from error

    async def finish(self) -> StoredBody:
        """Return where the whole body is stored; raises CallError."""
        try:
            body, body_ref = await self._spool.finish()
        except Unavailable as error:
            raise CallError(Failure.STORAGE, error.message) from error
        return StoredBody(body, body_ref, usage_of(body) if self._finder is None else self._finder.usage)

    def discard(self) -> None:
        """Discard the body, unless it is finished."""
        self._spool.discard()


class BodyStore:
    """Reads request bodies and stores response bodies; retries while the object store is unavailable."""

    def __init__(self, blobs: BlobStore, *, inline_bytes: int) -> None:
        self._blobs = blobs
        self._inline_bytes = inline_bytes

    def request(self, work: Work) -> RequestBody:
        """Return the request's body; raises CallError when there is none."""
        if work["data_ref"] is None and work["data"] is None:
            raise CallError(Failure.BODY_LOST, "the work record has no body")
        return RequestBody(self._blobs, work["data"] or b"", work["data_ref"])

    def response(self, work: Work, *, media_type: str) -> ResponseBody:
        """Return a writer for a response."""
        return ResponseBody(self.spool(work, media_type=media_type))

    def spool(self, work: Work, *, media_type: str) -> Spool:
        """Return a writer for the text of a stream."""
        return Spool(lambda: self._blobs.writer(_name(work), media_type=media_type), inline_bytes=self._inline_bytes)


def _name(work: Work) -> str:
    """Name a response: a repeated call within an attempt must not replace the response that was recorded."""
    return f"results/{work['id']}-{work['attempt']}-{secrets.token_hex(4)}"


def _lost(error: BlobMissing | BlobCorrupt | Unavailable) -> CallError:
    failure = Failure.STORAGE if isinstance(error, Unavailable) else Failure.BODY_LOST
    return CallError(failure, error.message)
