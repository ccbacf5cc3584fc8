"""Validation of one line of a batch input file. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from schemas.broken_lines import CODE, UNKNOWN
from schemas.common import BatchError
from schemas.json_text import TooDeep, changed, member, read_json, values
from schemas.nearest import SHOWN, hint
from schemas.task_body import stream_changes

MAX_CUSTOM_ID = 512
"""Characters: it is stored with every record of its task."""
MAX_LINE_BYTES = 8_388_608
"""Per line: the submitter holds a line several times, as text, as values and as the body that is sent."""
MAX_VALUES = 200_000
"""Values take many times their size in memory, and the event loop is blocked while a line is parsed."""
LARGE_BYTES = 262_144
MEMBERS = ("custom_id", "method", "url", "body")
TOO_DEEP = "depth limit exceeded"
"""Message of orjson for deeper nesting."""


_NAMED = re.compile(rb'"custom_id"\s*:\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")', re.DOTALL)
"""Of a line that is not JSON; its custom_id can mostly be found all the same."""


class LineRequest(NamedTuple):
    """A valid line."""

    custom_id: str | None
    """None where the line is not JSON and has no readable custom_id."""
    body: dict[str, Any]
    text: bytes
    """The body as in the line."""


class Replace(NamedTuple):
    """What a batch sets in the bodies of all its lines."""

    members: dict[str, Any]
    texts: dict[str, bytes]

    @classmethod
    def parse(cls, text: bytes | None) -> Replace:
        """Parse the member of the batch row."""
        members: dict[str, Any] = read_json(text) if text else {}
        return cls(members, values(text, members) if text else {})


class LineError(ValueError):
    """A line that is not a valid request."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def at(self, number: int | None) -> BatchError:
        """Return it as an error of the batch."""
        return {"code": self.code, "message": self.message, "param": self.param, "line": number}


class BrokenLine(LineError):
    """A line that is not JSON, or has an unknown member: an error of that line, not of the file."""


def parse_line(text: bytes | None, *, endpoint: str) -> LineRequest:
    """Read a line; raises LineError, and BrokenLine."""
    if text is None:
        raise LineError("invalid_request", f"This line is longer than {MAX_LINE_BYTES} bytes.")
    if len(text) > LARGE_BYTES and text.count(b",") + text.count(b":") > MAX_VALUES:
        raise LineError("invalid_request", f"This line holds more than {MAX_VALUES} values.")
    line = _object(text)
    custom_id = _custom_id(line)
    if line.get("method") not in (None, "POST"):
        raise LineError("invalid_method", "method must be POST.", "method")
    if line.get("url") is not None:
        _check_url(line["url"], endpoint)
    body = line.get("body")
    if body is None:
        raise LineError("missing_required_parameter", "Missing required parameter: body.", "body")
    if not isinstance(body, dict):
        raise LineError("invalid_request", "body must be a JSON object.", "body")
    try:
        request = LineRequest(custom_id, body, member(text, line, "body"))
    except TooDeep:
        raise LineError("invalid_request", "body is nested too deeply.", "body") from None
    for name in line:
        if name not in MEMBERS:
            shown = name[:SHOWN]
            raise BrokenLine(UNKNOWN, f"{shown} is no member of a batch line{hint(name, MEMBERS)}.", shown)
    return request


def custom_id_of(text: bytes | None) -> str | None:
    """Return the custom_id of a line, as far as it can be found."""
    try:
        line = read_json(text or b"")
    except orjson.JSONDecodeError:
        return _named(text or b"")
    return line.get("custom_id") if isinstance(line, dict) else None


def body_of(request: LineRequest, replace: Replace) -> bytes:
    """Return the body that is sent upstream: `replace` overrides the line, and nothing is streamed."""
    streams = stream_changes(request.body | replace.members, "batch")
    return changed(request.text, request.body, replace.texts | streams)


def _object(text: bytes) -> dict[str, Any]:
    try:
        line = read_json(text)
    except orjson.JSONDecodeError as error:
        if error.msg == TOO_DEEP:
            raise LineError("invalid_request", "This line is nested too deeply.") from None
        raise BrokenLine(CODE, f"This line is no valid JSON at column {_where(text, error)}.") from None
    if not isinstance(line, dict):
        raise LineError("invalid_request", "This line is not a JSON object.")
    return line


def _where(text: bytes, error: orjson.JSONDecodeError) -> str:
    """Return the column and the reason; orjson reports neither for a line that is not UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as wrong:
        return f"{wrong.start + 1}: it is not UTF-8"
    return f"{error.colno}: {error.msg.partition(':')[0]}"


def _named(text: bytes) -> str | None:
    found = _NAMED.search(text)
    try:
        name = orjson.loads(found[1]) if found else None
    except orjson.JSONDecodeError:
        return None
    return name if isinstance(name, str) and 1 <= len(name) <= MAX_CUSTOM_ID else None


def _custom_id(line: dict[str, Any]) -> str:
    found = line.get("custom_id")
    if found is None:
        raise LineError("missing_required_parameter", "Missing required parameter: custom_id.", "custom_id")
    if not isinstance(found, str) or not 1 <= len(found) <= MAX_CUSTOM_ID:
        raise LineError(
            "invalid_custom_id", f"custom_id must be a string of 1 to {MAX_CUSTOM_ID} characters.", "custom_id"
        )
    return found


def _check_url(url: object, endpoint: str) -> None:
    if not isinstance(url, str):
        raise LineError("invalid_url", "url must be a string.", "url")
    if url != endpoint:
        shown = url[:200]
        raise LineError("url_mismatch", f"The url {shown!r} does not match the batch's endpoint {endpoint!r}.", "url")
