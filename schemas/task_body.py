"""Checks and normalises the body of a direct task as the HTTP APIs do. Pure."""

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
    """Parse a JSON object; raises Invalid with the position of the error."""
    try:
        found = read_json(text)
    except orjson.JSONDecodeError as error:
        why = error.msg.partition(":")[0]
        raise Invalid(field, f"{field} is not valid JSON at line {error.lineno} column {error.colno}: {why}") from None
    if not isinstance(found, dict):
        raise Invalid(field, f"{field} must be a JSON object, not {kind_of(found)}")
    return found


def for_mode(text: bytes, members: Mapping[str, Any], mode: Mode) -> bytes:
    """Return a body with `stream` set for the mode; raises TooDeep."""
    return changed(text, members, stream_changes(members, mode))


def stream_changes(members: Mapping[str, Any], mode: Mode) -> dict[str, bytes | None]:
    """Return the changes that a mode requires: `stream`, and no `stream_options` without a stream.

    Servers reject a request with `stream_options` that does not stream.
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
    """Check a body and return it with its model; raises Invalid.

    As over HTTP, only `stream` is changed, and only if it contradicts the mode. A body that is not JSON is passed to
    the upstream unchanged.
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
        raise Invalid("data", "data is nested too deeply") from None
    return raw, model if isinstance(model, str) and len(model) <= MAX_TEXT else None


def for_rerun(task: Task) -> Task:
    """Return a task that is run again, with its body changed for its new mode.

    A body that cannot be parsed stays unchanged.
    """
    if task["data"] is None:
        return task
    try:
        data, _ = normalise_body(task["data"], mode=task["mode"], content_type=task["content_type"])
    except Invalid:
        return task
    return {**task, "data": data}


def kind_of(value: object) -> str:
    """Return the name of a value's JSON type."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
