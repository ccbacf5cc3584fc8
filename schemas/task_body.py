"""The body of a task that did not come over HTTP: checked and fitted as the doors there do it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from schemas.json_text import BOM, TooDeep, changed, read_json
from schemas.media_types import is_json
from schemas.records import Mode, Task
from schemas.validation import MAX_TEXT, Invalid

CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,256}")
OPTIONS = "stream_options"


def json_object(text: bytes | str, *, field: str) -> dict[str, Any]:
    """Read a text that must be one JSON object; raises Invalid that says where it is not."""
    try:
        found = read_json(text)
    except orjson.JSONDecodeError as error:
        why = error.msg.partition(":")[0]
        raise Invalid(field, f"{field} is no valid JSON at line {error.lineno} column {error.colno}: {why}") from None
    if not isinstance(found, dict):
        raise Invalid(field, f"{field} must be a JSON object, not {kind_of(found)}")
    return found


def for_mode(text: bytes, members: Mapping[str, Any], mode: Mode) -> bytes:
    """Return a body whose `stream` fits the mode; raises TooDeep."""
    return changed(text, members, stream_changes(members, mode))


def stream_changes(members: Mapping[str, Any], mode: Mode) -> dict[str, bytes | None]:
    """Return what makes a body fit its mode: `stream`, and nothing that goes with a stream where there is none.

    Servers refuse a request that has `stream_options` and does not stream.
    """
    changes: dict[str, bytes | None] = {}
    if mode == "streaming":
        if members.get("stream") is not True:
            changes["stream"] = b"true"
        return changes
    if members.get("stream"):
        changes["stream"] = b"false"
    if OPTIONS in members:
        changes[OPTIONS] = None
    return changes


def normalise_body(data: bytes | str, *, mode: Mode, content_type: str) -> tuple[bytes, str | None]:
    """Check a body and return it with the model that it names; raises Invalid.

    As over HTTP only `stream` is changed, and only where it contradicts the mode. A body of another media type than
    JSON is nobody's to read but the upstream's.
    """
    raw = data.encode() if isinstance(data, str) else data
    if not CONTENT_TYPE.fullmatch(content_type):
        raise Invalid("content_type", f"content_type must be 1 to {MAX_TEXT} printable ASCII characters")
    if not is_json(content_type):
        return raw, None
    members = json_object(raw, field="data")
    model = members.get("model")
    try:
        raw = for_mode(raw.removeprefix(BOM), members, mode)
    except TooDeep:
        raise Invalid("data", "data cannot be written as JSON: it is nested too deeply") from None
    return raw, model if isinstance(model, str) and len(model) <= MAX_TEXT else None


def repeated(task: Task) -> Task:
    """Return a task that is run again with a body that fits its mode, which may be another than that of the first.

    What cannot be read is repeated as it was.
    """
    if task["data"] is None:
        return task
    try:
        data, _ = normalise_body(task["data"], mode=task["mode"], content_type=task["content_type"])
    except Invalid:
        return task
    return {**task, "data": data}


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
