"""What a worker brings as the outcome of a task. Pure."""

from __future__ import annotations

from core.upstream_errors import reason_in
from schemas.common import Blob, Usage
from schemas.records import Outcome

WORKER_ERROR = "worker_error"
"""Error code of an outcome that a worker reported with a status of 400 or more."""


def reported(
    status_code: int,
    *,
    body: bytes | None,
    body_ref: Blob | None,
    content_type: str,
    started_ms: int,
    usage: Usage | None = None,
) -> Outcome:
    """Build the outcome that a worker reports, good below 400. It is final: the worker itself decides on repeats."""
    bad = status_code >= 400
    reason = reason_in(body, content_type) if bad else None
    return {
        "status_code": status_code,
        "body": body,
        "body_ref": body_ref,
        "content_type": content_type,
        "error_code": WORKER_ERROR if bad else None,
        "error_message": f"the worker reported {status_code}" + (f": {reason}" if reason else "") if bad else None,
        "retriable": False,
        "retry_after_ms": None,
        "upstream": None,
        "chunks": 0,
        "usage": usage,
        "started_ms": started_ms,
        "first_token_ms": None,
    }


def lost_body(*, started_ms: int) -> Outcome:
    """Build the outcome of a task that cannot be handed out, for its body is gone."""
    outcome = reported(500, body=None, body_ref=None, content_type="application/json", started_ms=started_ms)
    return {**outcome, "error_code": "body_missing", "error_message": "the stored request body cannot be used"}
