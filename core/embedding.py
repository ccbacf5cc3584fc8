"""How a body of any kind goes into a JSON object: JSON as it is, text as a string, everything else in base64. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import orjson

from core import lenient_json
from schemas.media_types import is_json

_BINARY = ("audio/", "image/", "video/", "font/")
_BREAKS = re.compile(rb"[\r\n]")


def text_of(body: bytes, content_type: str) -> str | None:
    """Return a body that is text; None for bytes, whose media type is in any case that of sound or pictures."""
    if content_type.lower().startswith(_BINARY):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def json_of(body: bytes, content_type: str) -> bytes | None:
    """Return a body that is JSON, so that every parser can read it; None for any other.

    A document counts whatever its type says, for servers forget to name it; a plain number or word only as JSON.
    """
    if is_json(content_type):
        return lenient_json.strict(body)
    if content_type.lower().startswith(_BINARY) or body.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return body


def described(body: bytes, content_type: str, *, name: str, types: str | None = None) -> dict[str, Any]:
    """Return the member `name` that holds a body, and beside it what it takes to read one that is no JSON.

    Args:
        types: what the names of these members begin with, `name` unless it is given. Bytes have both of them, its
            media type and the encoding base64; text has none.
    """
    if (document := json_of(body, content_type)) is not None:
        return {name: orjson.Fragment(document)}
    if (text := text_of(body, content_type)) is not None:
        return {name: text}
    types = types or name
    return {name: b64encode(body).decode(), f"{types}_content_type": content_type, f"{types}_encoding": "base64"}


def embedded_frame(body: bytes, content_type: str) -> bytes:
    """Return the payload of the one event that stands for a whole answer."""
    if (document := json_of(body, content_type)) is not None:
        return one_line(document)
    if text_of(body, content_type) is not None:
        return body
    return orjson.dumps(described(body, content_type, name="result"))


def one_line(json_text: bytes) -> bytes:
    """Return JSON without line breaks: between its values they are white space, inside of them they are written \\n."""
    return _BREAKS.sub(b" ", json_text) if b"\n" in json_text or b"\r" in json_text else json_text
