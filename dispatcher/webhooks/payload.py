"""The body of a callback, pure: {"status_code", "request_id", "body"} as Bella's clients read it."""

from __future__ import annotations

from typing import Any

import orjson

from schemas.records import Result


def payload(result: Result, body: bytes | None) -> bytes:
    """Render a callback; the outcome's body goes in as it came when it is JSON, else as a string."""
    return orjson.dumps({"status_code": result["status_code"], "request_id": result["id"], "body": _body(result, body)})


def _body(result: Result, body: bytes | None) -> Any:
    if not body:
        return _error(result) if result["error_code"] is not None else None
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
    return orjson.Fragment(body)


def _error(result: Result) -> dict[str, dict[str, str | None]]:
    code = result["error_code"]
    message = result["error_message"] or f"the task ended as {result['state']}"
    kind = "invalid_request_error" if 400 <= result["status_code"] < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
