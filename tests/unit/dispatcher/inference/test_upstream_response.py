"""Data that an upstream sent before its connection broke is read, also when the break was noticed first."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.settings.models import Settings
from dispatcher.inference.outcome import Failure
from dispatcher.inference.upstream import CallError, Upstream
from tests.support.waiting import eventually_async

FRAMES = [b'data: {"n":%d}\n\n' % number for number in range(5)]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in FRAMES)


def fin(_: asyncio.StreamWriter) -> None:
    """Close as usual."""


def rst(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    there: socket.socket = writer.get_extra_info("socket")
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def upstream(how: Callable[[asyncio.StreamWriter], None], gone: asyncio.Event) -> AsyncIterator[Upstream]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + BODY)
        await writer.drain()
        how(writer)
        writer.close()
        gone.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        one = Upstream(Settings(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        yield one
        await one.close()


async def read_late(one: Upstream, gone: asyncio.Event) -> AsyncIterator[bytes]:
    """Read a response after its break has been noticed."""
    async with one.post("/v1/chat/completions", b"{}", {}) as answer:
        await gone.wait()
        reader: Any = answer._response.content
        await eventually_async(reader.exception, what="the break")
        async for data in answer.iter_bytes():
            yield data


async def collect(parts: AsyncIterator[bytes], got: list[bytes]) -> None:
    async for part in parts:
        got.append(part)  # noqa: PERF401 - what came before the error counts


@pytest.mark.parametrize("how", [fin, rst])
async def test_nothing_that_was_sent_before_a_break_is_lost(how: Callable[[asyncio.StreamWriter], None]) -> None:
    gone = asyncio.Event()
    got: list[bytes] = []
    async with upstream(how, gone) as one:
        with pytest.raises(CallError) as caught:
            await collect(read_late(one, gone), got)
    assert caught.value.failure is Failure.CUT
    assert b"".join(got) == b"".join(FRAMES)


@asynccontextmanager
async def answering(head: bytes, body: bytes) -> AsyncIterator[Upstream]:
    """Run an upstream that sends the same response to every request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        one = Upstream(Settings(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        yield one
        await one.close()


async def test_a_body_that_was_packed_unasked_is_unpacked() -> None:
    packed = gzip.compress(b'{"a":1}')
    async with (
        answering(b"content-encoding: gzip", packed) as one,
        one.post("/v1/chat/completions", b"{}", {}) as answer,
    ):
        assert b"".join([piece async for piece in answer.iter_bytes()]) == b'{"a":1}'


@pytest.mark.parametrize(("coding", "body"), [(b"gzip", b"no gzip"), (b"deflate", b"\xff\xff\xff")])
async def test_a_body_that_cannot_be_unpacked_is_malformed(coding: bytes, body: bytes) -> None:
    got: list[bytes] = []
    async with answering(b"content-encoding: " + coding, body) as one:
        with pytest.raises(CallError) as caught:
            async with one.post("/v1/chat/completions", b"{}", {}) as answer:
                await collect(answer.iter_bytes(), got)
    assert caught.value.failure is Failure.MALFORMED


async def test_the_error_of_an_invalid_http_response_has_no_address() -> None:
    async with answering(b"broken head", b"") as one:
        with pytest.raises(CallError) as caught:
            async with one.post("/v1/chat/completions", b"{}", {}):
                pass
    assert caught.value.failure is Failure.MALFORMED
    assert "broken head" in caught.value.detail
    assert one.base not in caught.value.detail
    assert "message=" not in caught.value.detail


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"application/json", "application/json"),
        ("text/plain; a=ü".encode(), "text/plain; a=ü"),
        (b"text/plain; a=\xfc", "text/plain; a=ü"),
    ],
)
async def test_whatever_a_header_holds_a_record_can_hold(raw: bytes, text: str) -> None:
    async with answering(b"content-type: " + raw, b"") as one, one.post("/v1/images/edits", b"{}", {}) as answer:
        assert answer.header("Content-Type") == text
        assert answer.header("retry-after") is None
