"""Frames and payloads of server-sent events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sse import Payload, event_of
from ingress.http.sse import frame, frames, is_error, payloads


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"a":1}', b'data: {"a":1}\n\n'),
        (b"", b"data: \n\n"),
        (b" x", b"data:  x\n\n"),
        (b"one\ntwo", b"data: one\ndata: two\n\n"),
        (b"one\r\ntwo\rthree", b"data: one\ndata: two\ndata: three\n\n"),
    ],
)
def test_a_frame(payload: bytes, text: bytes) -> None:
    assert frame(payload) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\n\ndata: b\n\ndata: [DONE]\n\n", [b"a", b"b"]),
        (b"data:a\r\n\r\ndata:b\r\n\r\n", [b"a", b"b"]),
        (b": hello\n\nevent: x\nid: 4\ndata: a\n\n", [b"a"]),
        (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
        (b"data: a\n", [b"a"]),
        (b"data: a\n\ndata: half", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"", []),
    ],
)
def test_payloads(text: bytes, expected: list[bytes]) -> None:
    assert list(payloads(text)) == expected


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.binary().filter(lambda data: not set(data) & set(b"\r\n") and data.strip() not in (b"", b"[DONE]"))))
def test_what_was_framed_is_read_back(sent: list[bytes]) -> None:
    assert list(payloads(frames(sent))) == sent


def test_a_frame_has_the_name_of_its_event() -> None:
    text = frame(Payload.named(b'{"a":1}', "image_edit.completed"))
    assert text == b'event: image_edit.completed\ndata: {"a":1}\n\n'
    assert [event_of(one) for one in payloads(text + b"data: 2\n\n")] == ["image_edit.completed", ""]


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b'{"error":{"message":"x"}}', True),
        (b'{"id":"1","error":null}', False),
        (b'{"choices":[{"delta":{"content":"\\"error\\""}}]}', False),
        (b'"error"', False),
        (b'{"error"', False),
    ],
)
def test_an_upstreams_error_is_known(payload: bytes, *, error: bool) -> None:
    assert is_error(payload) is error
