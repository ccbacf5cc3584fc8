"""What an upstream had sent before it broke off is read, also when the break was noticed first."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.settings import Settings
from dispatcher.outcome import Failure
from dispatcher.upstream import CallError, Upstream
from tests.support.waiting import eventually_async

FRAMES = [b'data: {"n":%d}\n\n' % number for number in range(5)]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in FRAMES)


def fin(_: asyncio.StreamWriter) -> None:
    """Close as usual."""


def rst(writer: asyncio.StreamWriter) -> None:
    """Make the close a reset."""
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
    """Read an answer after its break has been noticed."""
    async with one.post("/v1/chat/completions", b"{}", {}) as response:
        await gone.wait()
        reader: Any = response.stream
        for name in ("_stream", "_reader"):
            reader = getattr(reader, name)
        await eventually_async(reader.exception, what="the break")
        async for data in response.aiter_bytes():
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
