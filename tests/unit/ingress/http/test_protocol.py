"""The bounds of a connection: a request's head, slowness, how many there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.server import ServerState

from ingress.http import protocol as module
from ingress.http.errors import ApiProblem, Dialects
from ingress.http.protocol import MAX_HEAD_BYTES, LimitedHttp
from tests.support.waiting import eventually_async, turns


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

    def resume_reading(self) -> None:
        """Be told that it was read."""


async def app(_: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def plain(problem: ApiProblem) -> Response:
    return Response(f"default {problem.code}", status_code=problem.status, headers=dict(problem.headers))


def other(problem: ApiProblem) -> Response:
    return Response(f"other {problem.code}", status_code=problem.status, headers=dict(problem.headers))


def connected(state: ServerState, answering: Any = app) -> LimitedHttp:
    protocol = LimitedHttp.bounded(Dialects(plain, {"/other": other}), max_connections=2)
    config = Config(answering, http=protocol, ws="none", loop="none", log_config=None, access_log=False)
    made = protocol(config, state, {})
    made.connection_made(Transport())  # type: ignore[arg-type]
    return made


@pytest.fixture
async def connection() -> AsyncIterator[LimitedHttp]:
    made = connected(ServerState())
    yield made
    made.connection_lost(None)


def written(protocol: LimitedHttp) -> bytes:
    transport: Any = protocol.transport
    return bytes(transport.written)


def refused(protocol: LimitedHttp, status: int = 431) -> bool:
    transport: Any = protocol.transport
    assert transport.closed is written(protocol).startswith(b"HTTP/1.1 %d " % status)
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


async def test_a_refusal_speaks_the_dialect_of_its_path(connection: LimitedHttp) -> None:
    connection.data_received(b"GET /other/x?y HTTP/1.1\r\nx: " + b"y" * MAX_HEAD_BYTES)
    assert written(connection).endswith(b"\r\nother too_large")
    assert b"connection: close\r\n" in written(connection)
    state = ServerState()
    later = connected(state)
    later.data_received(b"GET /other")
    later.data_received(b"/x HTTP/1.1\r\nx: ")
    later.data_received(b"y" * MAX_HEAD_BYTES)
    assert written(later).endswith(b"\r\nother too_large")
    later.connection_lost(None)


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\na\x00b: 1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\ncontent-length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\nabc",
        b"FETCH / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(connection: LimitedHttp, head: bytes) -> None:
    connection.data_received(head)
    assert refused(connection, 400)
    assert written(connection).endswith(b"\r\ndefault invalid_request")


@pytest.mark.parametrize("parts", [[b"G"], [b"GET / HTTP/1.1\r\n", b"x: 1\r\n"]])
async def test_a_slow_head_is_refused(monkeypatch: pytest.MonkeyPatch, parts: list[bytes]) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.05)
    connection = connected(ServerState())
    for part in parts:
        connection.data_received(part)
    await eventually_async(lambda: refused(connection, 408))


async def test_a_slow_body_is_refused_and_one_that_makes_way_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST /other HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n"
    steady, slow = connected(ServerState()), connected(ServerState())
    steady.data_received(head)
    monkeypatch.setattr(module, "BODY_WINDOW_S", 0.05)
    slow.data_received(head + b"a")
    await eventually_async(lambda: refused(slow, 408))
    assert written(slow).endswith(b"\r\nother request_timeout")
    monkeypatch.undo()
    for _ in range(0, 1_000_000, module.BODY_WINDOW_BYTES):
        steady.data_received(b"a" * module.BODY_WINDOW_BYTES)
        await turns()
        timer: Any = steady._timer
        if timer is not None:  # the window is over before the body is
            timer.cancel()
            steady._look_at_body()
    await eventually_async(lambda: written(steady).startswith(b"HTTP/1.1 200 "))
    steady.connection_lost(None)


async def test_a_body_that_is_not_read_is_not_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_WINDOW_S", 0.01)
    reading = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await reading.wait()
        await app(scope, receive, send)

    connection = connected(ServerState(), busy)
    connection.data_received(b"POST / HTTP/1.1\r\ncontent-length: 80000\r\n\r\n" + b"a" * 70_000)
    looked: list[None] = []
    look = connection._look_at_body
    monkeypatch.setattr(connection, "_look_at_body", lambda: (looked.append(None), look()))
    await eventually_async(lambda: len(looked) > 2)
    assert written(connection) == b""
    connection.data_received(b"a" * 10_000)
    reading.set()
    await eventually_async(lambda: written(connection).startswith(b"HTTP/1.1 200 "))
    connection.connection_lost(None)


async def test_a_request_that_is_being_answered_is_not_disturbed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.02)

    async def held(_: Any, __: Any, ___: Any) -> None:
        await asyncio.Event().wait()

    connection = connected(ServerState(), held)
    transport: Any = connection.transport
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    connection.data_received(b"GET /n")
    await eventually_async(lambda: transport.closed)
    assert written(connection) == b""
    for task in connection.tasks:
        task.cancel()


async def test_a_silent_connection_is_closed() -> None:
    connection = connected(ServerState())
    transport: Any = connection.transport
    assert connection.timeout_keep_alive_task is not None
    connection.timeout_keep_alive_handler()
    assert transport.closed
    assert written(connection) == b""


async def test_connections_beyond_the_limit_are_told_so() -> None:
    state = ServerState()
    first, second, third = (connected(state) for _ in range(3))
    third.data_received(b"GET /other HTTP/1.1\r\n\r\n")
    assert refused(third, 503)
    assert written(third).endswith(b"\r\nother unavailable")
    assert b"\r\nretry-after: 5\r\n" in written(third)
    third.connection_lost(None)
    for one in (first, second):
        one.data_received(b"GET / HTTP/1.1\r\n\r\n")
        await eventually_async(lambda one=one: written(one).startswith(b"HTTP/1.1 200 "))
        one.connection_lost(None)
