"""Detect event streams by their first bytes, because the media types of model servers are unreliable. Pure.

Some send streams as text/plain or without a type; some respond to a streaming request with one JSON document, often an
error, and the type text/event-stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from core.errors import HeadraceError
from schemas.media_types import EVENT_STREAM

_MARK = b"\xef\xbb\xbf"
_FIELDS = (b"data", b"event", b"id", b"retry")
_BINARY = ("audio/", "image/", "video/")
NAME_BYTES = 16
MOST_BLANKS = 65_536
"""Some proxies send blanks until the response comes; beyond this the media type decides."""


class NeedsMore(HeadraceError):
    """The bytes so far do not decide it."""


def is_event_stream(head: bytes, content_type: str, *, whole: bool = False) -> bool:
    """Return whether a response is an event stream by its `head`; raises NeedsMore, unless that is `whole`."""
    media_type = content_type.lower().strip()
    if media_type.startswith(_BINARY):
        return False
    declared = media_type.startswith(EVENT_STREAM)
    text = head.removeprefix(_MARK).lstrip()
    if not text or (head and _MARK.startswith(head)):
        if whole or len(head) >= MOST_BLANKS:
            return declared
        raise NeedsMore
    if declared:
        return text[:1] not in (b"{", b"[")
    if text[:1] == b":":
        return True
    name, colon, _ = text[:NAME_BYTES].partition(b":")
    if colon:
        return name in _FIELDS
    if not whole and any(field.startswith(name) for field in _FIELDS):
        raise NeedsMore
    return False


async def detect_stream(
    pieces: AsyncGenerator[bytes, None], content_type: str
) -> tuple[bool, AsyncGenerator[bytes, None]]:
    """Read until it is decided whether a response is an event stream; returns that, and all of its pieces."""
    head = b""
    async for piece in pieces:
        head += piece
        try:
            return is_event_stream(head, content_type), _again(head, pieces)
        except NeedsMore:
            continue
    return is_event_stream(head, content_type, whole=True), _again(head, pieces)


async def _again(head: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    if head:
        yield head
    async for piece in rest:
        yield piece
