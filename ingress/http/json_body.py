"""JSON bodies as the doors read them: one object, told where it is broken. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import orjson

from core.errors import InvalidRequest
from schemas.json_text import TooDeep, read_json
from schemas.nearest import SHOWN, hint

T = TypeVar("T")


def json_object(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object; raises InvalidRequest that says where it is not."""
    try:
        members = read_json(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(_where(body, error), field="body") from None
    if not isinstance(members, dict):
        raise InvalidRequest("the body must be a JSON object", field="body")
    return members


def check_members(members: Mapping[str, Any], known: Collection[str], *, of: str) -> None:
    """Refuse a member that is not known, naming the nearest: a slip in callback_url must not lose a callback."""
    for name in members:
        if name not in known:
            message = f"{name[:SHOWN]} is no member of {of}{hint(name, known)}"
            raise InvalidRequest(message, field=name[:SHOWN])


def not_too_deep(write: Callable[[], T], *, field: str) -> T:
    """Return what is written of a body; raises InvalidRequest naming the field when it is nested too deeply."""
    try:
        return write()
    except TooDeep:
        raise InvalidRequest(f"{field} is nested too deeply", field=field) from None


def _where(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body.strip():
        return "the body is empty; it must be a JSON object"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        line = body.count(b"\n", 0, wrong.start) + 1
        column = wrong.start - body.rfind(b"\n", 0, wrong.start)
        return f"the body is not valid UTF-8 at line {line} column {column} (byte {wrong.start})"
    return f"the body is not valid JSON at line {error.lineno} column {error.colno}: {error.msg.partition(':')[0]}"
