"""An upstream that answers a call with the very bytes that its request holds in base64, and hangs up."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
TEN_MEGABYTES = b"(ten megabytes)"
"""Stands for so many letters, which no request could hold."""


def raw(body: bytes, content_type: str | None, *, status: int = 200, headers: str = "") -> dict[str, Any]:
    """Return what a request asks for to get this answer; without a content type there is no such header."""
    kind = f"content-type: {content_type}\r\n" if content_type is not None else ""
    head = f"HTTP/1.1 {status} X\r\n{kind}{headers}connection: close\r\n"
    return {"head": head, "body": b64encode(body).decode()}


def _answer(asked: dict[str, Any]) -> bytes:
    body = b64decode(asked["body"]).replace(TEN_MEGABYTES, b"A" * 10_000_000)
    return f"{asked['head']}content-length: {len(body)}\r\n\r\n".encode() + body


class RawUpstream:
    """A server on a port of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[bytes] = []
        """The bodies of all calls."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        body = await reader.readexactly(length)
        if length:
            self.received.append(body)
        writer.write(_answer(json.loads(body)["sim"]) if length else HELLO)  # orjson refuses 1e400
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
async def raw_upstream() -> AsyncIterator[RawUpstream]:
    """Run one for a module."""
    async with RawUpstream() as made:
        yield made
