"""Validate responses with a success status: whether a call succeeded depends on the body as well. Pure.

Apart from the attempt, which needs a connection, so that the rules can be tested by themselves.
"""

from __future__ import annotations

from core import lenient_json
from core.sse import payloads
from core.upstream_errors import Reported, reported, reported_in_frame
from dispatcher.inference.outcome import Failure, Report
from dispatcher.inference.upstream import CallError
from schemas.media_types import EVENT_STREAM, is_json

NO_CONTENT = 204


def validated_body(status: int, body: bytes, content_type: str) -> bytes:
    """Return the body of a response with a status below 300, JSON in a form that every parser accepts.

    Raises CallError when it is an error, invalid or empty.
    """
    if not body.strip():
        if status != NO_CONTENT:
            raise CallError(Failure.EMPTY)
        return body
    if content_type.lower().startswith(EVENT_STREAM):
        for payload in payloads(body):
            _check(reported_in_frame(payload), payload)
        return body
    if b'"error"' in body:
        _check(reported(lenient_json.document(body)), body)
    if not is_json(content_type):
        return body
    if (document := lenient_json.strict(body)) is None:
        raise CallError(Failure.NO_JSON)
    return document


def _check(error: Reported | None, body: bytes) -> None:
    if error is not None:
        raise CallError(Failure.REPORTED, error.reason, report=Report(error.status, lenient_json.strict(body)))
