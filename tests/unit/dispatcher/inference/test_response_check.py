"""A success status alone does not make a response valid."""

from __future__ import annotations

import pytest

from dispatcher.inference.outcome import Failure, Report
from dispatcher.inference.response_check import validated_body
from dispatcher.inference.upstream import CallError

JSON = "application/json"
FRAME = b'{"error":{"message":"busy","code":503}}'


@pytest.mark.parametrize(
    ("body", "content_type", "failure"),
    [
        (FRAME, JSON, Failure.REPORTED),
        (FRAME, "text/plain", Failure.REPORTED),
        (b'{"object":"error","message":"busy","code":503}', JSON, Failure.REPORTED),
        (b"data: " + FRAME + b"\n\ndata: [DONE]\n\n", "text/event-stream", Failure.REPORTED),
        (b"", JSON, Failure.EMPTY),
        (b" \n", "", Failure.EMPTY),
        (b"<html>", JSON, Failure.NO_JSON),
        (b'{"a": ', "application/json; charset=utf-8", Failure.NO_JSON),
        (b"<html>", "application/problem+json", Failure.NO_JSON),
    ],
)
def test_errors_and_nothing_are_no_success(body: bytes, content_type: str, failure: Failure) -> None:
    with pytest.raises(CallError) as caught:
        validated_body(200, body, content_type)
    assert caught.value.failure is failure
    if failure is Failure.REPORTED:
        assert caught.value.detail == "busy"
        assert isinstance(caught.value.report, Report)
        assert caught.value.report.status == 503


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, b'{"choices":[],"error":null, "n": 1.50}', JSON),
        (200, b"<html>", "text/plain"),
        (200, b"data: 1\n\ndata: [DONE]\n\n", "text/event-stream"),
        (200, b"\xff\xfb", "audio/mpeg"),
        (204, b"", ""),
    ],
)
def test_answers_pass(status: int, body: bytes, content_type: str) -> None:
    assert validated_body(status, body, content_type) is body


def test_json_of_servers_is_mended_for_strict_parsers() -> None:
    assert validated_body(200, b'{"logprob":-Infinity,"text":"\xff\\ud800"}', JSON) == (
        b'{"logprob":null,"text":"\xef\xbf\xbd\\ufffd"}'
    )
