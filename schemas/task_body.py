"""The body of a task that did not come over HTTP: checked and fitted as the doors there do it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from schemas.records import Mode
from schemas.validation import MAX_TEXT, Invalid

JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\b", re.IGNORECASE)
CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,256}")
# orjson reads an integer above 64 bits as a float; only a text with 19 digits in a row can hold one.
_LONG_NUMBER = re.compile(rb"\d{19}")


def json_object(text: bytes | str, *, field: str) -> dict[str, Any]:
    """Read a text that must be one JSON object; raises Invalid that says where it is not."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        why = error.msg.partition(":")[0]
        raise Invalid(field, f"{field} is no valid JSON at line {error.lineno} column {error.colno}: {why}") from None
    if not isinstance(found, dict):
        raise Invalid(field, f"{field} must be a JSON object, not {kind_of(found)}")
    return found


def exact(text: bytes, found: dict[str, Any]) -> dict[str, Any]:
    """Return what `json_object` has read, with its long numbers unrounded."""
    if not _LONG_NUMBER.search(text):
        return found
    try:
        again: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("data", "data holds a number that is too long, or is nested too deeply") from None
    return again


def dumped(data: dict[str, Any]) -> bytes:
    """Write a body as JSON; raises Invalid."""
    try:
        return orjson.dumps(data)
    except (orjson.JSONEncodeError, RecursionError):
        pass
    try:  # a number that orjson does not write
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise Invalid("data", "data cannot be written as JSON: it is nested too deeply") from None


def fitted(data: bytes | str, *, mode: Mode, content_type: str) -> tuple[bytes, str | None]:
    """Check a body and return it with the model that it names; raises Invalid.

    As over HTTP only the member `stream` is changed, and only where it contradicts the mode. A body of another media
    type than JSON is nobody's to read but the upstream's.
    """
    raw = data.encode() if isinstance(data, str) else data
    if not CONTENT_TYPE.fullmatch(content_type):
        raise Invalid("content_type", f"content_type must be 1 to {MAX_TEXT} printable ASCII characters")
    if not JSON_TYPE.match(content_type):
        return raw, None
    members = json_object(raw, field="data")
    wanted: bool | None = True if mode == "streaming" else False if members.get("stream") else None
    model = members.get("model")
    if wanted is not None and members.get("stream") is not wanted:
        raw = dumped({**exact(raw, members), "stream": wanted})
    return raw, model if isinstance(model, str) and len(model) <= MAX_TEXT else None


def kind_of(value: object) -> str:
    """Name the JSON type of a value."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
