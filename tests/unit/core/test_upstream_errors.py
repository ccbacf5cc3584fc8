"""What servers say about failures, in every form that they have for it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sse import Payload
from core.upstream_errors import (
    MAX_REASON,
    Reported,
    hidden,
    reason_in,
    reported,
    reported_in_frame,
    without_addresses,
)

JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "too long", "type": "BadRequestError", "code": 400}}, "too long"),
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"error": {"code": "context_length_exceeded", "message": None}}, "context_length_exceeded"),
        ({"message": "no such model"}, "no such model"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body", "max_tokens"], "msg": "must be positive"}]}, "body.max_tokens: must be positive"),
        ({"detail": {"error": {"message": "deep"}}}, "deep"),
        ({"object": "error", "message": "boom", "code": 40303}, "boom"),
        ({"errors": ["one", {"message": "two"}]}, "one; two"),
        ({"error": {"message": "two\n lines"}}, "two lines"),
        ({"error": {"message": "half \ud83d"}}, "half \ufffd"),
        ("just text", "just text"),
        ({"choices": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_reason_is_found_in_every_form(body: Any, reason: str | None) -> None:
    text = b'{"error":{"message":"half \\ud83d"}}' if reason == "half \ufffd" else orjson.dumps(body)
    assert reason_in(text, JSON) == reason


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"upstream\n connect error", "text/plain", "upstream connect error"),
        (b"Service Unavailable", "", "Service Unavailable"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "text/html", "502 Bad Gateway"),
        (b"<html><style>p{}</style><body><h1>No such page</h1></body></html>", "text/html", "No such page"),
        (b"<html><body></body></html>", "text/html", None),
        (b"\xff\xfe\x00", "application/octet-stream", None),
        (b"RIFF\x00\x01", "", None),
        (b"text", "audio/mpeg", None),
        (b"", JSON, None),
        (b" ", "text/plain", None),
    ],
)
def test_plain_text_and_pages(body: bytes, content_type: str, reason: str | None) -> None:
    assert reason_in(body, content_type) == reason


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"code": 429, "message": "m"}}, 429),
        ({"error": {"code": "503", "message": "m"}}, 503),
        ({"error": {"message": "m"}, "status": 404}, 404),
        ({"error": {"type": "rate_limit_error", "message": "m"}}, 429),
        ({"error": {"type": "BadRequestError", "message": "m"}}, 400),
        ({"error": {"type": "overloaded_error", "message": "m"}}, 503),
        ({"error": {"code": 7, "message": "m"}}, 502),
        ({"error": "m"}, 502),
        ({"error": True, "message": "m"}, 502),
        ({"object": "error", "message": "m", "type": "invalid_request_error"}, 400),
        ({"type": "error", "error": {"message": "m"}}, 502),
        ({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "m"}}}, 429),
    ],
)
def test_an_error_with_status_200_stands_for_a_status(document: Any, status: int) -> None:
    assert reported(document) == Reported(status, "m")
    assert reported_in_frame(orjson.dumps(document)) == Reported(status, "m")


@pytest.mark.parametrize(
    "document",
    [
        {"id": "1", "error": None, "choices": []},
        {"error": {}, "output": []},
        {"choices": [{"delta": {"content": 'the "error" was'}}]},
        {"object": "chat.completion"},
        [],
        "error",
        None,
    ],
)
def test_answers_are_no_errors(document: Any) -> None:
    assert reported(document) is None
    assert reported_in_frame(orjson.dumps(document)) is None


@pytest.mark.parametrize("payload", [b'{"message":"m"}', b"m", b'{"error":{"message":"m"}}'])
def test_an_event_named_error_is_one_whatever_it_holds(payload: bytes) -> None:
    assert reported_in_frame(Payload.named(payload, "error")) == Reported(502, "m")
    assert reported_in_frame(Payload.named(b"{}", "ping")) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://docs.vllm.ai/en/x", "see https://docs.vllm.ai/en/x"),
        ("POST http://10.0.0.5:8000/v1/chat failed", "POST [address] failed"),
        ("http://vllm/v1 and http://[::1]:80/x", "[address] and [address]"),
        ("tcp://10.2.3.4:5", "[address]"),
        ("connect to 10.0.0.5:8000", "connect to [address]"),
        ("gpu-1:8000 is down", "[address] is down"),
        ("at model.svc.cluster.local", "at [address]"),
        ("localhost refused", "[address] refused"),
        ("fe80::1 and 2001:db8::8a2e:370:7334", "[address] and [address]"),
        ("gpu-2 died", "[address] died"),
        ("at 12:30:45 of llama3:70b with std::string", "at 12:30:45 of llama3:70b with std::string"),
        ("version 1.2.3.4.5, v1.2.3", "version 1.2.3.4.5, v1.2.3"),
    ],
)
def test_addresses_of_machines_are_hidden(text: str, shown: str) -> None:
    assert hidden(text, own="http://gpu-2:8000/v1") == shown


def test_a_body_without_addresses_stays_byte_for_byte() -> None:
    body = b'{ "error" : {"message": "too long", "param": "messages[0]:12"} }'
    assert without_addresses(body, own="http://gpu-2:8000") == body
    assert without_addresses(b'{"error":"http://10.1.1.1:80/x is down"}') == b'{"error":"[address] is down"}'
    assert without_addresses(b"\xff10.1.1.1") == b"\xff10.1.1.1"


@given(st.text(min_size=MAX_REASON))
def test_a_reason_is_bounded_and_of_one_line(text: str) -> None:
    reason = reason_in(orjson.dumps({"error": text}), JSON)
    assert reason is None or (len(reason) <= MAX_REASON and "\n" not in reason)


@given(st.binary(), st.sampled_from([JSON, "text/plain", "text/html", ""]))
def test_no_body_is_too_strange(body: bytes, content_type: str) -> None:
    reason_in(body, content_type)
    reported_in_frame(body)
