"""Requests that no client of good will sends, over a real socket: refused clearly, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings.models import IngressSettings, Settings
from schemas import topics
from schemas.codec import TASK
from schemas.records import Chunk, Result, Task
from tests.support.bella import BODY, PUT, chunk
from tests.support.memory_server import Served, served_in_memory
from tests.support.results import result_of

LIMIT = 100_000
TEXT = json.dumps(BODY).encode()
HEAD = b"host: h\r\nconnection: close\r\nauthorization: Bearer hr-local\r\n"


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), ingress=IngressSettings(max_body_bytes=LIMIT))
    async with served_in_memory(settings) as running:
        yield running


@pytest.fixture(autouse=True)
async def unharmed(served: Served) -> AsyncIterator[None]:
    """After each test the server is well, and has no request left."""
    yield
    accepted = await served.client.post(PUT, json=BODY)
    assert accepted.status_code == 200
    assert len(served.memory.ingress.waiters) == 0
    served.memory.log.clear()


def put(body: bytes = TEXT, *, extra: bytes = b"") -> bytes:
    return b"POST /v1/queue/put HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n%b" % (HEAD, extra, len(body), body)


def streamed(task: Task) -> list[Chunk | Result]:
    """Answer with two frames."""
    ended = result_of(task["id"] or "", mode="streaming", chunks=1, content_type="text/event-stream", body=b"")
    return [chunk(task, 0, b'{"n":1}', b'{"n":2}'), ended]


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def message(answer: bytes) -> str:
    """Return what an error of the queue's own dialect says."""
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["code"] == status(answer)
    return str(body["message"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"\xff", "not valid UTF-8"),
        (b"[" * 90_000, "depth limit"),
        (b'{"data":' * 5_000 + b"1" + b"}" * 5_000, "depth limit"),
        (b'{"queue":"q","endpoint":"/v1/x","data":' + b'{"a":' * 900 + b"1" + b"}" * 901, "nested too deeply"),
        (TEXT.replace(b"[]", b"NaN"), "not valid JSON"),
        (TEXT.replace(b'"m"', b'"\\ud800"'), "not valid JSON"),
        (TEXT.replace(b'"chat"', b'"a\\u0000"'), "queue must be"),
        (TEXT.replace(b"/v1/chat/completions", b"/v1/x\\r\\nhost: evil"), "endpoint must be"),
        (TEXT.replace(b"/v1/chat/completions", b"/v1/../admin"), "endpoint must be"),
        (TEXT.replace(b'"queue"', b'"callback_url": "http://a\\r\\nx: y/", "queue"'), "callback_url must be"),
    ],
)
async def test_bodies(served: Served, body: bytes, words: str) -> None:
    answer = await served.raw(put(body))
    assert status(answer) == 400
    assert words in message(answer)
    assert not served.memory.log


async def test_of_a_member_that_comes_twice_the_last_counts(served: Served) -> None:
    assert status(await served.raw(put(b'{"queue": "first",' + TEXT[1:]))) == 200
    [record] = served.memory.written(topics.tasks(0))
    assert TASK.decode(record.value or b"")["queue"] == "chat"


@pytest.mark.parametrize(
    "kind", [b"", b"content-type: text/plain\r\n", b"content-type: application/x-www-form-urlencoded\r\n"]
)
async def test_json_is_json_whatever_its_type_says(served: Served, kind: bytes) -> None:
    assert status(await served.raw(put(extra=kind))) == 200


async def test_a_body_beyond_the_limit_is_refused_before_it_is_read(served: Served) -> None:
    answer = await served.first(put(b"", extra=b"").replace(b"content-length: 0", b"content-length: 99999999999"))
    assert status(answer) == 413
    chunk = b"%x\r\n%b\r\n" % (LIMIT + 1, b"a" * (LIMIT + 1))
    endless = b"POST /v1/queue/put HTTP/1.1\r\n" + HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk
    answer = await served.first(endless)
    assert status(answer) == 413
    assert f"larger than {LIMIT} bytes" in message(answer)


@pytest.mark.parametrize(
    "extra",
    [
        b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
        b"connection: Upgrade\r\nupgrade: websocket\r\n",
        b"expect: 100-continue\r\n",
    ],
)
async def test_what_a_client_offers_beside_its_request_is_no_reason_to_lose_its_body(
    served: Served, extra: bytes
) -> None:
    assert b" 200 OK\r\n" in await served.raw(put(extra=extra))


@pytest.mark.parametrize("cut", [b"", b"U", b"Up", b"Upg", b"Upgr", b"Upgra", b"Upgrad", b"Upgrade", b"Upgrade:"])
async def test_an_upgrade_that_comes_in_two_segments_is_no_reason_either(served: Served, cut: bytes) -> None:
    request = put(extra=b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAA\r\n")
    at = request.index(b"\r\nUpgrade:") + 2 + len(cut)
    for parts in ((request[:at], request[at:]), (request[: at - 1], request[at - 1 : at], request[at:])):
        assert b" 200 OK\r\n" in await served.in_segments(*parts)
    assert len(served.memory.written(topics.tasks(0))) == 2


@pytest.mark.parametrize("path", [PUT, "/v1/chat/completions"])
async def test_http_1_0_gets_no_chunks(served: Served, path: str) -> None:
    """Such a client takes the lengths of chunks for text."""
    served.memory.answer = streamed
    body = {"model": "m", "stream": True} if path != PUT else BODY | {"response_mode": "streaming"}
    asked = put(json.dumps(body).encode()).replace(b"/v1/queue/put HTTP/1.1", b"%b HTTP/1.0" % path.encode())
    head, _, text = (await served.raw(asked)).partition(b"\r\n\r\n")
    assert b" 200 OK\r\n" in head
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert text.replace(b": keep-alive\n", b"") == b'data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n'
    served.memory.answer = lambda _: []


async def test_http_1_0_is_told_the_length_where_it_is_known(served: Served) -> None:
    head, _, text = (await served.raw(put().replace(b"HTTP/1.1", b"HTTP/1.0"))).partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(text) in head + b"\r\n"
    assert b"transfer-encoding" not in head
    head, _, text = (await served.raw(b"GET /v1/nothing HTTP/1.0\r\n" + HEAD + b"\r\n")).partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(text) in head + b"\r\n"


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/queue/%00",
        b"/v1/queue/%ff%fe",
        b"/v1/queue/a%0d%0aset-cookie:%20a",
        b"/v1/queue/" + b"a" * 20_000,
        b"/v1/tasks/%00",
        b"/v1/tasks/%2e%2e%2fqueue",
        b"/v1/tasks/task_%F0%9F%98%80",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/v1/queue/TASK-1-0-C-260131120000-0003-017000%00",
        b"//v1/queue/put",
        b"/v1/queue/put/",
        b"/v1/queue/TASK-99999999999999999999999-0-C-260131120000-0003-017000",
    ],
)
async def test_paths(served: Served, path: bytes) -> None:
    answer = await served.raw(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, HEAD))
    assert status(answer) == 404
    assert b"set-cookie" not in answer.partition(b"\r\n\r\n")[0]
    json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "header", [b"authorization: Bearer \xff\xfe", b"authorization: \x80", b"authorization: Bearer " + b"k" * 60_000]
)
async def test_keys_that_are_none(served: Served, header: bytes) -> None:
    answer = await served.raw(b"GET /v1/queue/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n%b\r\n\r\n" % header)
    assert status(answer) == 401


@pytest.mark.parametrize("key", [b"\xff", b"", b"a" * 257])
async def test_idempotency_keys_that_are_none(served: Served, key: bytes) -> None:
    answer = await served.raw(put(extra=b"idempotency-key: " + key + b"\r\n"))
    assert status(answer) == 400
    assert "Idempotency-Key" in message(answer)


async def test_a_trace_context_that_is_none_is_left_out(served: Served) -> None:
    assert status(await served.raw(put(extra=b"traceparent: 00-\xff-" + b"0" * 9_000 + b"\r\n"))) == 200


async def test_the_head_is_bounded_in_the_dialect_of_its_path(served: Served) -> None:
    answer = await served.raw(b"GET /v1/queue/x HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 70_000)
    assert status(answer) == 431
    assert "exceed 65536 bytes" in message(answer)
    answer = await served.raw(
        b"GET /v1/tasks HTTP/1.1\r\nhost: h\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(9_000))
    )
    assert status(answer) == 431
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}


@pytest.mark.parametrize(
    "smuggled",
    [
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 4\r\ncontent-length: 5\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"x: a\r\n folded: b\r\n",
        b"x : a\r\n",
    ],
)
async def test_a_head_with_two_meanings_is_refused(served: Served, smuggled: bytes) -> None:
    answer = await served.raw(b"POST /v1/queue/put HTTP/1.1\r\nhost: h\r\n" + smuggled + b"\r\n" + TEXT)
    assert status(answer) == 400
    assert not served.memory.log


async def test_requests_sent_without_waiting_are_answered_in_order(served: Served) -> None:
    many = 500
    head = b"host: h\r\nauthorization: Bearer hr-local\r\n\r\n"
    asked = b"".join(b"GET /v1/queue/n%d HTTP/1.1\r\n%b" % (n, head) for n in range(many))
    answer = await served.raw(asked + b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    told = [int(part.split(b'"')[0]) for part in answer.split(b"there is no task n")[1:]]
    assert told == list(range(many))
    assert answer.endswith(b'{"live":true}')


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(put()[:-10])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert not served.memory.log


async def test_connections_beyond_the_limit_are_refused_and_those_before_it_served(tmp_path: Path) -> None:
    async with served_in_memory(Settings(data_dir=tmp_path), max_connections=50) as running:
        opened = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(50)]
        refused = await running.raw(b"GET /v1/tasks HTTP/1.1\r\nhost: h\r\n\r\n")
        assert status(refused) == 503
        assert b"\r\nretry-after: 5\r\n" in refused
        assert set(json.loads(refused.partition(b"\r\n\r\n")[2])) == {"error"}
        for reader, writer in opened:
            writer.write(b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            assert status(await reader.read()) == 200
            writer.close()
        answer = await running.raw(b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        assert status(answer) == 200
