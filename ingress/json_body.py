"""JSON bodies as the doors read them: one object, told where it is broken, and written again unrounded. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import orjson

from core.errors import InvalidRequest

# orjson reads an integer above 64 bits as a float; only a text with 19 digits in a row can hold one.
_LONG_NUMBER = re.compile(rb"\d{19}")


def json_object(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object; raises InvalidRequest that says where it is not."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(_where(body, error), field="body") from None
    if not isinstance(members, dict):
        raise InvalidRequest("the body must be a JSON object", field="body")
    return members


def changed_json(body: bytes, members: dict[str, Any], change: Callable[[dict[str, Any]], Any], *, field: str) -> bytes:
    """Return what `change` makes of a body as JSON; `members` is the body as json_object read it.

    Raises InvalidRequest naming the field when it cannot be written.
    """
    try:
        if _LONG_NUMBER.search(body):
            exact = change(json.loads(body))
            return json.dumps(exact, ensure_ascii=False, separators=(",", ":")).encode()
        return orjson.dumps(change(members))
    except (orjson.JSONEncodeError, RecursionError):
        raise InvalidRequest(f"{field} is nested too deeply", field=field) from None
    except ValueError:
        raise InvalidRequest(f"{field} holds a number that is too long", field=field) from None


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
