"""Outcomes of attempts: which failures can be retried. Pure.

Another attempt may help after a connection that failed or broke, after 408, 429, 500, 502, 503 and 504, and when a
store was unavailable. It cannot help after any other response, and must not be made once a token has been delivered.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from core.upstream_errors import hidden, without_addresses
from schemas.common import Blob, Usage
from schemas.media_types import JSON, OCTET_STREAM
from schemas.records import Outcome

RETRIABLE = frozenset((408, 429, 500, 502, 503, 504))
MAX_MESSAGE = 500


class Report(NamedTuple):
    """An error that the upstream sent with status 200: the equivalent status, and its JSON."""

    status: int
    body: bytes | None


class _Rule(NamedTuple):
    status: int
    code: str
    retriable: bool
    message: str


class Failure(Enum):
    """Reasons for which an attempt has no usable response."""

    UNREACHABLE = _Rule(503, "upstream_unreachable", True, "no connection to the upstream")
    CUT = _Rule(502, "upstream_cut", True, "the upstream broke off its answer")
    MALFORMED = _Rule(502, "upstream_malformed", False, "the upstream's response is not valid HTTP")
    NO_JSON = _Rule(502, "upstream_malformed", False, "the upstream's response has the type JSON and is not valid JSON")
    REDIRECT = _Rule(502, "upstream_redirect", False, "the upstream sent a redirect, which is not followed")
    TOO_LARGE = _Rule(502, "answer_too_large", False, "the upstream's response is larger than allowed")
    REPORTED = _Rule(502, "upstream_error", True, "the upstream reported an error")
    EMPTY = _Rule(502, "upstream_empty", True, "the upstream's response has no content")
    TIMEOUT = _Rule(408, "timeout", False, "the task's deadline passed")
    RUN_TIMEOUT = _Rule(408, "timeout", True, "the call took longer than its run_timeout")
    BODY_LOST = _Rule(500, "body_missing", False, "the stored request body cannot be used")
    STORAGE = _Rule(503, "storage_unavailable", True, "the object store did not answer")
    STOPPED = _Rule(503, "worker_stopped", True, "the worker stopped in the middle of the stream")
    INTERNAL = _Rule(500, "internal_error", False, "the worker failed on this task")

    @property
    def status(self) -> int:
        """Return the equivalent HTTP status."""
        return self.value.status


def failure_outcome(
    failure: Failure,
    *,
    started_ms: int,
    upstream: str | None = None,
    detail: str = "",
    report: Report | None = None,
) -> Outcome:
    """Build the outcome of a failure; `Relay.delivered` adds the part of a stream that was delivered."""
    rule = failure.value
    message = f"{rule.message}: {hidden(detail, own=upstream)}" if detail else rule.message
    return {
        "status_code": report.status if report is not None else rule.status,
        "body": without_addresses(report.body, own=upstream) if report is not None else None,
        "body_ref": None,
        "content_type": JSON,
        "error_code": rule.code,
        "error_message": _bounded(message),
        "retriable": rule.retriable if report is None else report.status in RETRIABLE,
        "retry_after_ms": None,
        "upstream": upstream,
        "chunks": 0,
        "usage": None,
        "started_ms": started_ms,
        "first_token_ms": None,
    }


def response_outcome(
    status: int,
    *,
    body: bytes | None,
    content_type: str,
    upstream: str,
    started_ms: int,
    body_ref: Blob | None = None,
    chunks: int = 0,
    usage: Usage | None = None,
    retry_after: int | None = None,
    first_token_ms: int | None = None,
    reason: str | None = None,
) -> Outcome:
    """Build the outcome of a response: completed below 300, else an error with its body, status and reason."""
    bad = status >= 300
    suffix = f": {hidden(reason, own=upstream)}" if reason else ""
    return {
        "status_code": status,
        "body": without_addresses(body, own=upstream) if bad else body,
        "body_ref": body_ref,
        "content_type": content_type or OCTET_STREAM,
        "error_code": "upstream_error" if bad else None,
        "error_message": _bounded(f"the upstream answered {status}{suffix}") if bad else None,
        "retriable": status in RETRIABLE and not chunks,
        "retry_after_ms": retry_after if bad else None,
        "upstream": upstream,
        "chunks": chunks,
        "usage": usage,
        "started_ms": started_ms,
        "first_token_ms": first_token_ms,
    }


def _bounded(message: str) -> str:
    return message[:MAX_MESSAGE].encode(errors="replace").decode()
