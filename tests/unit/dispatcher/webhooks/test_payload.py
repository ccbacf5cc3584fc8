"""The request body of a webhook."""

from __future__ import annotations

from base64 import b64decode

import orjson
import pytest

from dispatcher.webhooks.payload import payload
from tests.support.webhook_bench import result


def test_json_goes_in_as_it_came() -> None:
    body = b'{"n":  12345678901234567890123, "a":1,"a":2}'
    assert payload(result(), body) == (
        b'{"status_code":200,"request_id":"TASK-1-0-C-261118110640-0001-000001","body":' + body + b"}"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", b"plain", "plain"),
        ("text/plain", b"42", "42"),
        ("application/json", b'{"half', '{"half'),
    ],
)
def test_text_is_a_string(content_type: str, body: bytes, text: str) -> None:
    shown = orjson.loads(payload(result(content_type=content_type), body))
    assert shown["body"] == text
    assert "result_encoding" not in shown


@pytest.mark.parametrize("content_type", ["audio/mpeg", "application/octet-stream", "text/plain"])
def test_bytes_are_base64_with_their_media_type(content_type: str) -> None:
    shown = orjson.loads(payload(result(content_type=content_type), bytes(range(256))))
    assert b64decode(shown["body"]) == bytes(range(256))
    assert (shown["result_content_type"], shown["result_encoding"]) == (content_type, "base64")


def test_json_that_strict_parsers_refuse_is_mended() -> None:
    shown = payload(result(), b'{"logprob":-Infinity,"text":"half \\ud83d","n":12345678901234567890123}')
    assert b'{"logprob":null,"text":"half \\ufffd","n":12345678901234567890123}' in shown


def test_a_failure_without_a_body_names_itself() -> None:
    ended = result(state="cancelled", status_code=499, error_code="cancelled", error_message="you asked for it")
    assert orjson.loads(payload(ended, None)) == {
        "status_code": 499,
        "request_id": ended["id"],
        "body": {
            "error": {
                "message": "you asked for it",
                "type": "invalid_request_error",
                "param": None,
                "code": "cancelled",
            }
        },
    }
    late = orjson.loads(payload(result(state="failed", status_code=504, error_code="timeout"), None))
    assert late["body"]["error"] == {
        "message": "the task ended as failed",
        "type": "server_error",
        "param": None,
        "code": "timeout",
    }


def test_an_upstream_error_keeps_its_body() -> None:
    bad = result(state="failed", status_code=400, error_code="upstream_error")
    assert orjson.loads(payload(bad, b'{"error":"x"}'))["body"] == {"error": "x"}
