"""What a worker of a replay brings of an upstream's answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headrace.replay.worker import outcome_of


@pytest.mark.parametrize(
    ("status", "body", "content_type", "brought"),
    [
        (200, b'{"n":123456789012345678901}', "application/json", {"body": {"n": 123456789012345678901}}),
        (200, b'{"n":NaN}', "application/json", {"body": {"n": None}}),
        (200, b"text", "text/plain", {"body": "text"}),
        (
            200,
            b"\xff",
            "audio/mpeg",
            {"body": "/w==", "result_content_type": "audio/mpeg", "result_encoding": "base64"},
        ),
        (400, b'{"detail":"no"}', "application/json", {"status_code": 400, "body": {"detail": "no"}}),
        (200, b'{"error":{"code":429,"message":"busy"}}', "application/json", {"status_code": 429}),
        (200, b"", "application/json", {"status_code": 502}),
        (503, b"", "", {"status_code": 503, "body": ""}),
    ],
)
def test_what_is_brought(status: int, body: bytes, content_type: str, brought: dict[str, Any]) -> None:
    outcome = outcome_of(status, body, content_type)
    text = orjson.dumps(outcome)
    if b"123456789012345678901" in body:
        assert b"123456789012345678901" in text
        return
    shown = orjson.loads(text)
    assert {"status_code": 200} | shown | brought == shown
