"""Server-sent events as text: frames from payloads and payloads from what an upstream sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.sse import DONE, event_of, payloads
from core.upstream_errors import reported_in_frame

__all__ = ("DONE", "KEEP_ALIVE", "MEDIA_TYPE", "frame", "frames", "is_error", "payloads")

KEEP_ALIVE = b": keep-alive\n"
"""A comment without the empty line: some parsers take an empty line for the end of an event without data, and fail."""
MEDIA_TYPE = "text/event-stream"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def frame(payload: bytes) -> bytes:
    """Render one payload, with its event's name; of several lines each becomes a data line, as the format demands."""
    event = event_of(payload)
    if b"\n" in payload or b"\r" in payload:
        payload = _LINE_END.sub(b"\ndata: ", payload)
    return (b"event: %b\n" % event.encode() if event else b"") + b"data: " + payload + b"\n\n"


def frames(payloads: Iterable[bytes]) -> bytes:
    """Render payloads one after another."""
    return b"".join(map(frame, payloads))


def is_error(payload: bytes) -> bool:
    """Tell whether a payload is an upstream's error, after which it says no more."""
    return reported_in_frame(payload) is not None
