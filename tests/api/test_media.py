"""Forms and large answers through the whole stack: memory, refusals that can be read, and what stays in the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Self

import httpx
import psutil
import pytest

from bench.simulator import Simulator
from tests.support.stack import KEY, READY_S, Stack, call_of
from tests.support.waiting import eventually_async

MB = 1_000_000
SPEECH = "/v1/audio/transcriptions"
PATIENCE_S = 60
AUTH = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
async def fresh(whole: Stack) -> Stack:
    """Start ingress and dispatcher again: one that has held large bodies may have room left for more."""
    for role in ("ingress", "dispatcher"):
        await asyncio.to_thread(whole.kill, role, signal.SIGTERM)
    await eventually_async(whole.ready, within_s=READY_S, what="a ready stack")
    return whole


@pytest.fixture
async def client(whole: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=whole.url, headers=AUTH, timeout=PATIENCE_S) as made:
        yield made


def stored(whole: Stack) -> list[str]:
    folder = whole.folder / "objects"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Peak:
    """The most memory that a process has used within a block, above what it used before it; looked at every 5 ms."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name=f"peak-{pid}", daemon=True)
        self._most = self._before = self._used()

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        self.bytes = self._most - self._before

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self._most = max(self._most, self._used())

    def _used(self) -> int:
        return int(self._process.memory_info().rss)


def form(size: int, **fields: str) -> dict[str, object]:
    return {"data": {"model": "sim-instant", **fields}, "files": {"file": ("a.wav", bytes(range(250)) * (size // 250))}}


async def test_a_25_mb_upload_costs_no_role_its_memory(
    fresh: Stack, simulator: Simulator, client: httpx.AsyncClient
) -> None:
    for size in (300_000, 2 * MB):  # code is loaded, connections and caches are there
        assert (await client.post(SPEECH, **form(size))).status_code == 200  # type: ignore[arg-type]
    with Peak(fresh.pid("ingress")) as ingress, Peak(fresh.pid("dispatcher")) as dispatcher:
        response = await client.post(SPEECH, **form(25 * MB))  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    call = call_of(simulator, response.headers["x-task-id"])
    assert call.headers["content-length"] == str(len(call.body))
    assert ingress.bytes < 10 * MB
    assert dispatcher.bytes < 10 * MB


async def test_a_large_answer_costs_no_role_its_memory(fresh: Stack, client: httpx.AsyncClient) -> None:
    ask = {"model": "sim-instant", "messages": [{"role": "user", "content": "x"}]}
    await client.post("/v1/chat/completions", json=ask | {"sim": {"size": MB}})
    with Peak(fresh.pid("ingress")) as ingress, Peak(fresh.pid("dispatcher")) as dispatcher:
        async with client.stream("POST", "/v1/chat/completions", json=ask | {"sim": {"size": 40 * MB}}) as response:
            digest = hashlib.sha256()
            size = 0
            async for piece in response.aiter_raw():
                size += len(piece)
                digest.update(piece)
    assert (response.status_code, size) == (200, 40 * MB)
    assert ingress.bytes < 10 * MB
    assert dispatcher.bytes < 10 * MB


@pytest.mark.parametrize("path", [SPEECH, "/v1/chat/completions", "/v1/queue/put"])
async def test_a_client_that_sends_everything_first_can_read_why_it_was_refused(whole: Stack, path: str) -> None:
    answer = await asyncio.to_thread(refused, whole, path, 40 * MB)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert b"larger than" in body


def refused(whole: Stack, path: str, size: int) -> bytes:
    """Send a whole request before reading anything, as simple clients do."""
    host, _, port = whole.url.removeprefix("http://").partition(":")
    kind = "multipart/form-data; boundary=x" if path == SPEECH else "application/json"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        for _ in range(size // MB):
            connection.sendall(b"x" * MB)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer


async def test_without_a_length_too(whole: Stack, client: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
        for _ in range(40):
            yield b"x" * MB

    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = await client.post(SPEECH, content=body(), headers=headers)
    assert (response.status_code, response.json()["error"]["param"]) == (413, "file")


async def test_a_client_that_asks_first_is_refused_before_it_sends(whole: Stack) -> None:
    host, _, port = whole.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {40 * MB}\r\n\r\n".encode()
    )
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_an_upload_that_breaks_off_leaves_nothing(whole: Stack) -> None:
    before = set(stored(whole))
    host, _, port = whole.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'.encode()
    )
    writer.write(b"x" * 5 * MB)
    await writer.drain()
    await eventually_async(lambda: any("arriving/" in name for name in stored(whole)), what="a file that arrives")
    writer.transport.abort()
    await eventually_async(
        lambda: not [name for name in set(stored(whole)) - before if "arriving" in name], what="its end"
    )


async def test_a_form_that_is_sent_again_with_its_key_is_one_task(
    whole: Stack, simulator: Simulator, client: httpx.AsyncClient
) -> None:
    """Each sending has a boundary of its own, as every client makes one anew."""
    key, before = f"media {time.time_ns()}", set(stored(whole))
    headers, sim = {"Idempotency-Key": key}, json.dumps({"key": key})
    first = await client.post(SPEECH, **form(MB, sim=sim), headers=headers)  # type: ignore[arg-type]
    again = await client.post(SPEECH, **form(MB, sim=sim), headers=headers)  # type: ignore[arg-type]
    other = await client.post(SPEECH, **form(MB, sim=sim, language="de"), headers=headers)  # type: ignore[arg-type]
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["x-task-id"] == first.headers["x-task-id"]
    assert other.status_code == 422
    assert simulator.stats.keys[key].arrivals == 1
    kept = f"tasks/{first.headers['x-task-id']}"
    await eventually_async(lambda: set(stored(whole)) - before == {kept}, what="the end of the duplicates' bodies")


async def test_bodies_go_when_their_task_has_expired(whole: Stack, client: httpx.AsyncClient) -> None:
    kept = await client.post(SPEECH, **form(MB, sim='{"size": 600000}'))  # type: ignore[arg-type]
    headers = {"X-Headrace-Result-Retention": "2"}
    gone = await client.post(SPEECH, **form(MB, sim='{"size": 600000}'), headers=headers)  # type: ignore[arg-type]
    assert (kept.status_code, gone.status_code) == (200, 200)
    kept_id, gone_id = kept.headers["x-task-id"], gone.headers["x-task-id"]
    assert len([name for name in stored(whole) if kept_id in name]) == 2
    await eventually_async(lambda: not [name for name in stored(whole) if gone_id in name], what="the sweep")
    assert len([name for name in stored(whole) if kept_id in name]) == 2


async def test_the_sweep_goes_on_after_kill_9(whole: Stack, client: httpx.AsyncClient) -> None:
    headers = {"X-Headrace-Result-Retention": "3"}
    answer = await client.post(SPEECH, **form(MB), headers=headers)  # type: ignore[arg-type]
    task_id = answer.headers["x-task-id"]
    await asyncio.to_thread(whole.kill, "streams-online")
    await eventually_async(
        lambda: not [name for name in stored(whole) if task_id in name], within_s=90, what="the sweep"
    )
    await eventually_async(whole.ready, within_s=READY_S, what="a ready stack for the tests after this one")
