"""Streams and whole responses are distinguished by their first bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from dispatcher.inference.stream_detection import detect_stream

STREAM = "text/event-stream"


async def pieces(text: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(text), size):
        yield text[at : at + size]


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize(
    ("content_type", "text", "expected"),
    [
        (STREAM, b"data: 1\n\n", True),
        ("Text/Event-Stream; charset=utf-8", b"data: 1\n\n", True),
        ("text/plain", b"data: 1\n\n", True),
        ("", b"event: x\ndata: 1\n\n", True),
        ("application/octet-stream", b": ping\n\ndata: 1\n\n", True),
        ("application/json", b"\r\nid: 1\ndata: 1\n\n", True),
        ("", b"\xef\xbb\xbfretry: 5\n\n", True),
        (STREAM, b'{"error":"busy"}', False),
        (STREAM, b'  [{"error":"busy"}]', False),
        ("application/json", b'{"data": 1}', False),
        ("text/plain", b"database: down", False),
        ("text/plain", b"da", False),
        ("audio/mpeg", b"data: really sound", False),
        (STREAM, b"", True),
        ("", b"", False),
    ],
)
async def test_what_an_answer_is(content_type: str, text: bytes, expected: bool, size: int) -> None:
    is_stream, again = await detect_stream(pieces(text, size), content_type)
    assert is_stream is expected
    assert b"".join([piece async for piece in again]) == text
