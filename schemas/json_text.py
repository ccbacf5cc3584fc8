"""Changes or extracts members of a JSON object as text, so that all other numbers stay as they were. Pure.

Decoding and encoding a body rounds numbers: orjson reads integers above 64 bits as floats, a float has 15 exact digits,
and a number such as 1e400 does not fit at all. So a text with such a number is edited as text; any other is decoded and
encoded, which is faster and loses nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

BOM = b"\xef\xbb\xbf"
"""Byte order mark that some Windows editors write; JSON allows readers to skip it."""
DEEPEST = 254
"""Maximum nesting that orjson encodes; a deeper body could not be returned by all APIs."""
_LONG_NUMBER = re.compile(rb"[0-9.]{17}|[0-9][eE][+-]?[0-9]{3}")
"""Sixteen digits and a point, or a long exponent: only a text with this can contain a number that is rounded."""
_TOO_LARGE = "number is infinity"
"""Start of orjson's error message for a number that does not fit a float."""
_LARGEST = b"1e308"
# Possessive quantifiers: linear time in the length of a string.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NUMBER = re.compile(_STRING + rb"|-?[0-9][0-9.eE+-]*+", re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|[{}\[\],:]", re.DOTALL)
_NESTED = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_VALUE = re.compile(rb"[^ \t\r\n]")
_SPACE = b" \t\r\n"
_QUOTE, _COLON = ord('"'), ord(":")
_OPENING, _CLOSING = b"{[", b"}]"


class TooDeep(ValueError):
    """A value is nested more deeply than DEEPEST."""


class _Member(NamedTuple):
    """Position of a member: its name from `start`, its value from `begin` to `end`."""

    name: str
    start: int
    begin: int
    end: int


def read_json(text: bytes | str) -> Any:
    """Read JSON text, with or without a byte order mark; raises orjson.JSONDecodeError.

    A number beyond the range of a float becomes the largest float; `changed` and `member` keep its text.
    """
    text = text.removeprefix("\ufeff") if isinstance(text, str) else text.removeprefix(BOM)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if not error.msg.startswith(_TOO_LARGE):
            raise
        raw = text.encode() if isinstance(text, str) else text
    return orjson.loads(_NUMBER.sub(_within_range, raw))


def member(text: bytes, read: Mapping[str, Any], name: str) -> bytes:
    """Return the text of a member's value; `read` is the decoded object. Raises TooDeep."""
    if not _LONG_NUMBER.search(text):
        return _written(read[name])
    return next(text[one.begin : one.end] for one in reversed(_members(text)) if one.name == name)


def values(text: bytes, read: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the text of every member's value; raises TooDeep."""
    if not _LONG_NUMBER.search(text):
        return {name: _written(value) for name, value in read.items()}
    return {one.name: text[one.begin : one.end] for one in _members(text)}


def changed(text: bytes, read: Mapping[str, Any], changes: Mapping[str, bytes | None]) -> bytes:
    """Return the object with members replaced by other texts, or removed (None); raises TooDeep."""
    if not changes:
        return text
    if not _LONG_NUMBER.search(text):
        remaining = {name: value for name, value in read.items() if changes.get(name, b"") is not None}
        return _written(remaining | {name: orjson.Fragment(new) for name, new in changes.items() if new is not None})
    parts: list[bytes] = []
    left = dict(changes)
    for one in _members(text):
        if one.name not in changes:
            parts.append(text[one.start : one.end])
        elif (new := left.pop(one.name, None)) is not None:  # a repeated name is written once
            parts.append(text[one.start : one.begin] + new)
    parts += [orjson.dumps(name) + b":" + new for name, new in left.items() if new is not None]
    return b"{" + b",".join(parts) + b"}"


def _within_range(token: re.Match[bytes]) -> bytes:
    """Return a string unchanged, and a number in the range of a float."""
    text = token[0]
    try:
        too_large = math.isinf(float(text))
    except ValueError:  # a string, or an invalid number, which orjson rejects
        return text
    return (b"-" if text.startswith(b"-") else b"") + _LARGEST if too_large else text


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):
        raise TooDeep("nested too deeply") from None


def _members(text: bytes) -> list[_Member]:
    """Return all members of a valid object, repeated names included."""
    found: list[_Member] = []
    at = text.index(b"{") + 1
    name, start, begin = "", 0, -1
    while True:
        token = _next(_TOKEN, text, at)
        mark = text[token.start()]
        at = token.end()
        if mark == _QUOTE:
            if begin < 0:
                name, start = orjson.loads(token[0]), token.start()
        elif mark == _COLON:
            begin = _next(_VALUE, text, at).start()
        elif mark in _OPENING:
            at = _end_of_nested(text, at)
        else:  # a comma, or the end of the object
            if begin >= 0:
                found.append(_Member(name, start, begin, _end_of_value(text, token.start())))
                begin = -1
            if mark in _CLOSING:
                return found


def _end_of_nested(text: bytes, at: int) -> int:
    """Return the end of the array or object that was opened before `at`."""
    depth = 1
    for token in _NESTED.finditer(text, at):
        mark = text[token.start()]
        if mark in _OPENING:
            depth += 1
            if depth > DEEPEST:
                raise TooDeep("nested too deeply")
        elif mark in _CLOSING:
            depth -= 1
            if not depth:
                return token.end()
    raise ValueError("the JSON text has no end")


def _end_of_value(text: bytes, at: int) -> int:
    while text[at - 1] in _SPACE:
        at -= 1
    return at


def _next(pattern: re.Pattern[bytes], text: bytes, at: int) -> re.Match[bytes]:
    found = pattern.search(text, at)
    if found is None:
        raise ValueError("the JSON text has no end")
    return found
