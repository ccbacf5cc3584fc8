"""The body of a callback."""

from __future__ import annotations

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
    ("body", "text"), [(b"plain", "plain"), (b'{"half', '{"half'), (b"\xff!", "\ufffd!"), (b"NaN", "NaN")]
)
def test_anything_else_is_a_string(body: bytes, text: str) -> None:
    assert orjson.loads(payload(result(), body))["body"] == text


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
        "message": "the task ended as failed", "type": "server_error", "param": None, "code": "timeout",
    }  # fmt: skip


def test_an_upstream_error_keeps_its_body() -> None:
    bad = result(state="failed", status_code=400, error_code="upstream_error")
    assert orjson.loads(payload(bad, b'{"error":"x"}'))["body"] == {"error": "x"}
