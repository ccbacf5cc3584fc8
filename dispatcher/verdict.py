"""Whether an answer with a good status is one: success is judged by what it says. Pure."""

from __future__ import annotations

from core import lenient_json
from core.sse import payloads
from core.upstream_errors import Reported, reported, reported_in_frame
from dispatcher.outcome import EVENT_STREAM, Failure, Report, is_broken_json
from dispatcher.upstream import CallError

NO_CONTENT = 204


def check_answer(status: int, body: bytes, content_type: str, *, has_usage: bool) -> None:
    """Judge a whole answer with a status below 300; raises CallError when it is an error, broken or nothing.

    `has_usage` says that token counts were found in it, so that it is JSON.
    """
    if not body.strip():
        if status != NO_CONTENT:
            raise CallError(Failure.EMPTY)
        return
    if content_type.lower().startswith(EVENT_STREAM):
        for payload in payloads(body):
            _check(reported_in_frame(payload), payload)
        return
    if b'"error"' in body:
        _check(reported(lenient_json.document(body)), body)
    if not has_usage and is_broken_json(content_type, body):
        raise CallError(Failure.NO_JSON)


def _check(error: Reported | None, body: bytes) -> None:
    if error is not None:
        raise CallError(Failure.REPORTED, error.reason, report=Report(error.status, lenient_json.strict(body)))
