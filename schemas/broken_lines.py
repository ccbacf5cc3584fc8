"""Tasks for invalid batch lines: they are not run, and their outcome has the error. Pure.

Every line of a batch is a task, so that invalid lines are counted, ordered and reported like all others.
"""

from __future__ import annotations

import orjson

from schemas.media_types import JSON
from schemas.records import Outcome

CONTENT_TYPE = "application/vnd.headrace.broken-line+json"
"""Media type of such a body."""
CODE = "invalid_json_line"
UNKNOWN = "unknown_parameter"


def error_body(message: str, *, code: str = CODE) -> bytes:
    """Return the body of the task of an invalid line."""
    return orjson.dumps({"code": code, "message": message})


def outcome_of(content_type: str, body: bytes | str | None, *, started_ms: int) -> Outcome | None:
    """Return the outcome of such a task; None for a task with a request."""
    if content_type != CONTENT_TYPE:
        return None
    try:
        found = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        found = None
    members = found if isinstance(found, dict) else {}
    message = members.get("message")
    return {
        "status_code": 400,
        "body": None,
        "body_ref": None,
        "content_type": JSON,
        "error_code": UNKNOWN if members.get("code") == UNKNOWN else CODE,
        "error_message": message if isinstance(message, str) else "This line is not valid JSON.",
        "retriable": False,
        "retry_after_ms": None,
        "upstream": None,
        "chunks": 0,
        "usage": None,
        "started_ms": started_ms,
        "first_token_ms": None,
    }
