"""Send the bytes of a file to a client, whole or a byte range, without holding the file in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from core.storage.blobs import BlobStore
from ingress.http.errors import ApiProblem, ErrorRenderer
from ingress.http.responses import StoredResponse
from schemas.batches import Segment
from schemas.common import Blob

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_DIGITS = 19
"""More digits than any file size has; a longer number is cut and still lies beyond the end."""


class Content(NamedTuple):
    """Name, media type and segments of a file."""

    name: str
    media_type: str
    pieces: Sequence[Segment]
    blob: Blob | None = None
    """The object of an uploaded file, with its digest."""

    @property
    def size(self) -> int:
        """Return the total size in bytes."""
        return sum(piece.size for piece in self.pieces)

    @property
    def etag(self) -> str | None:
        """Return the entity tag; None for a file that still grows."""
        return None if self.blob is None else f'"{self.blob["sha256"]}"'


class ByteRange(NamedTuple):
    """A range of bytes, the end not included."""

    begin: int
    end: int


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Parse a Range header; None for the whole file, an empty range when it is not satisfiable.

    Several ranges, and an invalid header, mean the whole file, as HTTP allows.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return ByteRange(max(0, size - _number(match[2])), size)
    begin, end = _number(match[1]), _number(match[2]) + 1 if match[2] else size
    if match[2] and end <= begin:
        return None
    return ByteRange(min(begin, size), min(end, size))


def _number(digits: str) -> int:
    return int(digits.lstrip("0")[:_DIGITS] or "0")


async def content_response(request: Request, blobs: BlobStore, content: Content, *, refuse: ErrorRenderer) -> Response:
    """Respond with the bytes of a file; raises BlobMissing, BlobCorrupt and Unavailable before the response starts."""
    size = content.size
    headers = {
        "content-type": content.media_type,
        "content-disposition": f"attachment; filename*=UTF-8''{quote(content.name, safe='')}",
        "accept-ranges": "bytes",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    if content.etag is not None:
        headers["etag"] = content.etag
    condition = request.headers.get("if-range")
    span = parse_range(request.headers.get("range"), size) if condition in (None, content.etag) else None
    if span is not None and span.begin >= span.end:
        unsatisfiable = ApiProblem(
            416,
            "range_not_satisfiable",
            f"the file has {size} bytes; there is nothing in that range",
            "Range",
            headers={"content-range": f"bytes */{size}"},
        )
        return refuse(unsatisfiable)
    status = 200
    if span is not None:
        status, headers["content-range"] = 206, f"bytes {span.begin}-{span.end - 1}/{size}"
    begin, end = span or ByteRange(0, size)
    if request.method == "HEAD" or begin == end:
        return Response(status_code=status, headers={**headers, "content-length": str(end - begin)})
    whole = content.blob is not None and span is None
    source = await blobs.open(content.blob) if whole and content.blob else joined(blobs, content.pieces, begin, end)
    first = await anext(source)  # a missing object gets an error status, not a truncated response
    sent: Blob = {"uri": content.name, "size": end - begin, "sha256": ""}
    return StoredResponse(_from(first, source), sent, status=status, headers=headers)


async def joined(blobs: BlobStore, pieces: Sequence[Segment], begin: int, end: int) -> AsyncGenerator[bytes, None]:
    """Yield a byte range of the concatenated segments."""
    at = 0
    for piece in pieces:
        here = ByteRange(max(begin - at, 0), min(end - at, piece.size))
        at += piece.size
        if here.begin >= here.end:
            continue
        async with aclosing(blobs.part(piece.name, here.begin, here.end)) as data:
            async for one in data:
                yield one


async def _from(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece
