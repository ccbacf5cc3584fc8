"""Tolerant JSON parser for responses of model servers, and their normalisation for strict parsers.

In addition to JSON it accepts NaN and infinite numbers, lone surrogates, unescaped control characters in strings, a
byte order mark and invalid UTF-8. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_MARK = "\ufeff"
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(?<![\w.])-?(?:NaN|Infinity)(?![\w.])', re.DOTALL)
_PAIR, _HALF = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}", r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_SURROGATES = re.compile(rf"{_PAIR}|{_HALF}|\\.", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")


def loads(text: bytes) -> Any:
    """Parse a document; raises ValueError. Lone surrogates are preserved, because their other half may follow."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode(errors="replace").removeprefix(_MARK), strict=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def document(text: bytes | None) -> Any:
    """Parse a document; None if it is not JSON."""
    try:
        return loads(text or b"")
    except ValueError:
        return None


def strict(text: bytes, *, keep_halves: bool = False) -> bytes | None:
    """Return the document as strict JSON; None if it is not JSON.

    Strict JSON is returned unchanged. Otherwise NaN and infinity become null and invalid Unicode becomes U+FFFD; all
    other numbers and members stay as written.

    Args:
        keep_halves: preserve lone surrogates, whose other half may be in the next chunk of a stream.
    """
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    else:
        return text
    mend = _with_halves if keep_halves else _whole
    mended = _TOKEN.sub(mend, text.decode(errors="replace").removeprefix(_MARK))
    try:
        json.loads(mended)
    except (ValueError, RecursionError):
        return None
    return mended.encode()


def joined(text: str) -> str:
    """Return a text with surrogate pairs combined; a lone surrogate becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def ends_in_half(text: str) -> bool:
    """Return whether the last character is a high surrogate."""
    return "\ud800" <= text[-1:] <= "\udbff"


def _with_halves(token: re.Match[str]) -> str:
    text = token[0]
    if not text.startswith('"'):
        return "null"
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _whole(token: re.Match[str]) -> str:
    return _SURROGATES.sub(lambda found: "\\ufffd" if _is_half(found[0]) else found[0], _with_halves(token))


def _is_half(escape: str) -> bool:
    return len(escape) == len("\\ud800") and escape[1] == "u"
