"""Errors in the form of the OpenAI API, which more than one API uses. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from core import lenient_json
from schemas.records import Result

_TYPES = {429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
"""Codes that clients of that API expect; other errors have our codes, which are more specific."""


def error_body(status: int, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
    """Render the body of an error answer; the type follows from the status."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": message, "type": kind, "param": param, "code": _CODES.get(status, code)}
    return orjson.dumps({"error": error})


def error_frame(result: Result | None, *, message: str, kind: str, code: str | None) -> bytes:
    """Render the payload of a stream's error frame; an error object from the upstream is passed on unchanged."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    if result is not None and result["body"]:
        body = lenient_json.document(result["body"])
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            error |= body["error"]
    return orjson.dumps({"error": error})
