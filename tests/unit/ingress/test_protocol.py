"""The limit on a request's head."""

from __future__ import annotations

from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from ingress.protocol import MAX_HEAD_BYTES, LimitedHttp


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, _: str) -> None:
        return None

    def pause_reading(self) -> None:
        """Be told that a body is large."""


async def app(_: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def connection() -> LimitedHttp:
    config = Config(app, http=LimitedHttp, ws="none", loop="none", log_config=None, access_log=False)
    protocol = LimitedHttp(config, ServerState(), {})
    protocol.connection_made(Transport())  # type: ignore[arg-type]
    return protocol


def refused(protocol: LimitedHttp) -> bool:
    transport: Any = protocol.transport
    assert transport.closed is transport.written.startswith(b"HTTP/1.1 431 ")
    return bool(transport.closed)


async def test_an_endless_header_is_refused(connection: LimitedHttp) -> None:
    connection.data_received(b"GET / HTTP/1.1\r\nx: ")
    for _ in range(MAX_HEAD_BYTES // 1000 + 1):
        assert not refused(connection)
        connection.data_received(b"y" * 1000)
    assert refused(connection)


async def test_an_endless_url_is_refused(connection: LimitedHttp) -> None:
    connection.data_received(b"GET /" + b"a" * MAX_HEAD_BYTES)
    assert refused(connection)


async def test_a_small_head_before_a_large_body_is_fine(connection: LimitedHttp) -> None:
    body = b"b" * (4 * MAX_HEAD_BYTES)
    request = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    connection.data_received(request)
    assert not refused(connection)


@pytest.mark.parametrize("cut", [1, 2, 3, 40])
async def test_wherever_the_head_is_cut(connection: LimitedHttp, cut: int) -> None:
    head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 70000\r\n\r\n"
    connection.data_received(head[:-cut])
    connection.data_received(head[-cut:] + b"b" * 70000)
    assert not refused(connection)


async def test_a_connection_may_serve_many_requests(connection: LimitedHttp) -> None:
    head = b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 5000 + b"\r\n\r\n"
    for _ in range(MAX_HEAD_BYTES // 1000):
        connection.data_received(head)
    assert not refused(connection)
