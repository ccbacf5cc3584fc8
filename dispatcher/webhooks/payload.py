"""The body of a callback, pure: {"status_code", "request_id", "body"} as Bella's clients read it."""

from __future__ import annotations

from typing import Any

import orjson

from core.embedding import described
from schemas.records import Result

EVENT_STATUS = {"start": 202, "progress": 202, "expired": 410}


def payload(result: Result, body: bytes | None) -> bytes:
    """Render an outcome; its body goes in as it came when it is JSON, text as a string, anything else in base64."""
    return orjson.dumps({"status_code": result["status_code"], "request_id": result["id"], **_body(result, body)})


def link_payload(result: Result, *, size: int, base: str) -> bytes:
    """Render an outcome that is too large to be posted: where its owner can fetch it stands in place of the body."""
    return orjson.dumps(
        {
            "status_code": result["status_code"],
            "request_id": result["id"],
            "body": None,
            "body_url": f"{base}/v1/queue/{result['id']}",
            "body_bytes": size,
        }
    )


def progress_payload(task_id: str, event: str, body: dict[str, Any]) -> bytes:
    """Render what happened to a task short of its outcome; the member `event` keeps it apart from one."""
    return orjson.dumps({"status_code": EVENT_STATUS[event], "request_id": task_id, "event": event, "body": body})


def _body(result: Result, body: bytes | None) -> dict[str, Any]:
    if not body:
        return {"body": _error(result) if result["error_code"] is not None else None}
    return described(body, result["content_type"], name="body", types="result")


def _error(result: Result) -> dict[str, dict[str, str | None]]:
    code = result["error_code"]
    message = result["error_message"] or f"the task ended as {result['state']}"
    kind = "invalid_request_error" if 400 <= result["status_code"] < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
