"""Server-sent events as text: frames from payloads and payloads from what an upstream sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import orjson

KEEP_ALIVE = b": keep-alive\n"
"""A comment without the empty line: some parsers take an empty line for the end of an event without data, and fail."""
DONE = b"[DONE]"
MEDIA_TYPE = "text/event-stream"
_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def frame(payload: bytes) -> bytes:
    """Render one payload; one of several lines becomes several data lines, as the format demands."""
    if b"\n" in payload or b"\r" in payload:
        payload = _LINE_END.sub(b"\ndata: ", payload)
    return b"data: " + payload + b"\n\n"


def frames(payloads: Iterable[bytes]) -> bytes:
    """Render payloads one after another."""
    return b"".join(map(frame, payloads))


def payloads(text: bytes) -> Iterator[bytes]:
    """Read the payloads out of an upstream's text, [DONE] left out; comments and other fields carry nothing for us.

    The dispatcher cuts the same text while it arrives; a test holds the two to the same payloads.
    """
    lines = _LINE_END.split(text.removeprefix(_MARK))
    rest = lines.pop()
    if not rest:
        lines.append(b"")  # the end completes the last event, but never half a line
    elif _value(rest) == DONE:
        lines += [rest, b""]
    data: list[bytes] = []
    for line in lines:
        if line:
            value = _value(line)
            if value is not None:
                data.append(value)
        elif data:
            payload = b"\n".join(data)
            data = []
            if payload.strip() != DONE:
                yield payload


def _value(line: bytes) -> bytes | None:
    """Return what follows `data:`, None for comments and other fields."""
    name, _, value = line.partition(b":")
    return value.removeprefix(b" ") if name == b"data" else None


def is_error(payload: bytes) -> bool:
    """Tell whether a payload is an upstream's error, after which it says no more."""
    if b'"error"' not in payload:
        return False
    try:
        members = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return isinstance(members, dict) and bool(members.get("error"))
