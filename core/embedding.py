"""Embed a body in a JSON object: JSON unchanged, text as a string, everything else in base64. Pure."""

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
    """Return a text body; None for binary data, such as audio or images by media type."""
    if content_type.lower().startswith(_BINARY):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def json_of(body: bytes, content_type: str) -> bytes | None:
    """Return a JSON body in a form that every parser can read; None for any other body.

    An object or array is detected even without a JSON media type, which some servers omit; a scalar only with one.
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
    """Return the member `name` with a body, and for a body that is not JSON its media type and encoding.

    Args:
        types: prefix of the names of these members, by default `name`. Binary data has both, the media type and the
            encoding base64; text has neither.
    """
    if (document := json_of(body, content_type)) is not None:
        return {name: orjson.Fragment(document)}
    if (text := text_of(body, content_type)) is not None:
        return {name: text}
    types = types or name
    return {name: b64encode(body).decode(), f"{types}_content_type": content_type, f"{types}_encoding": "base64"}


def embedded_frame(body: bytes, content_type: str) -> bytes:
    """Return the payload of the single event that carries a whole response."""
    if (document := json_of(body, content_type)) is not None:
        return one_line(document)
    if text_of(body, content_type) is not None:
        return body
    return orjson.dumps(described(body, content_type, name="result"))


def one_line(json_text: bytes) -> bytes:
    """Return JSON without line breaks: between values they are white space, inside strings they are escaped."""
    return _BREAKS.sub(b" ", json_text) if b"\n" in json_text or b"\r" in json_text else json_text
