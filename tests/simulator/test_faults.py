"""Every way to misbehave, seen by a real client or on the bare socket."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from bench.load import build_request
from bench.simulator import Simulator

PATH = "/v1/chat/completions"
CHAT = {"model": "any", "messages": [{"role": "user", "content": "a"}]}


def body(fault: str, *, stream: bool = False, **more: object) -> dict[str, object]:
    """Make a chat request that asks for a fault."""
    return {**CHAT, "stream": stream, "sim": {"fault": fault, **more}}


async def read_lines(client: httpx.AsyncClient, request: dict[str, object], lines: list[str]) -> None:
    """Collect the data lines of a stream for as long as it lasts."""
    async with client.stream("POST", PATH, json=request) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            # Not a comprehension: what came before the break must be kept.
            lines += [line.removeprefix("data: ")] if line else []


async def talk(sim: Simulator, request: dict[str, object]) -> bytes:
    """Send a request over a bare socket; return what comes until the end."""
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    close = {"connection": "close"}
    writer.write(build_request(sim.root + PATH, json.dumps(request).encode(), headers=close))
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("stream", [False, True])
async def test_hang_never_answers(client: httpx.AsyncClient, sim: Simulator, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post(PATH, json=body("hang", stream=stream), timeout=httpx.Timeout(60, read=0.1))
    await sim.until(lambda: sim.stats.disconnects == 1)


async def test_reset_comes_before_any_byte(sim: Simulator) -> None:
    with pytest.raises(ConnectionResetError):
        await talk(sim, body("reset"))
    assert sim.stats.aborted == 1


async def test_reset_after_headers(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(build_request(sim.root + PATH, json.dumps(body("reset_after_headers")).encode()))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize("fault", ["half_body", "cut"])
async def test_half_a_body(client: httpx.AsyncClient, sim: Simulator, fault: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(PATH, json=body(fault))
    raw = await talk(sim, body(fault))
    head, _, rest = raw.partition(b"\r\n\r\n")
    declared = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert len(rest) == declared // 2
    assert sim.stats.aborted == 2


@pytest.mark.parametrize(("fault", "after"), [("cut", 3), ("half_body", 3), ("cut", 0)])
async def test_a_stream_is_cut(client: httpx.AsyncClient, fault: str, after: int) -> None:
    lines: list[str] = []
    with pytest.raises(httpx.RemoteProtocolError):
        await read_lines(client, body(fault, stream=True, after=after), lines)
    assert len(lines) == after
    assert all(json.loads(line)["choices"] for line in lines)


async def test_content_length_too_short(client: httpx.AsyncClient, sim: Simulator) -> None:
    raw = await talk(sim, body("length_short"))
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]) == len(rest) - 10
    with pytest.raises(json.JSONDecodeError):
        (await client.post(PATH, json=body("length_short"))).json()


async def test_content_length_too_long_holds_the_connection(client: httpx.AsyncClient, sim: Simulator) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post(PATH, json=body("length_long"), timeout=httpx.Timeout(60, read=0.1))
    await sim.until(lambda: sim.stats.disconnects == 1)


async def test_invalid_json(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json=body("invalid_json"))
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()
    lines: list[str] = []
    await read_lines(client, body("invalid_json", stream=True, after=1), lines)
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[1])
    assert json.loads(lines[2])
    assert lines[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_non_utf8(client: httpx.AsyncClient, stream: bool) -> None:
    response = await client.post(PATH, json=body("non_utf8", stream=stream))
    assert response.status_code == 200
    with pytest.raises(UnicodeDecodeError):
        response.content.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_endless(client: httpx.AsyncClient, sim: Simulator, stream: bool) -> None:
    seen = 0
    async with client.stream("POST", PATH, json=body("endless", stream=stream)) as response:
        async for data in response.aiter_bytes():
            seen += len(data)
            if seen > 20_000:
                break
    await sim.until(lambda: sim.stats.disconnects == 1)
    await sim.until(lambda: not sim.tasks)


async def test_stream_without_done(client: httpx.AsyncClient, sim: Simulator) -> None:
    lines: list[str] = []
    await read_lines(client, body("no_done", stream=True), lines)
    assert json.loads(lines[-1])["choices"][0]["finish_reason"] == "stop"
    assert (await client.post(PATH, json=body("no_done"))).json()["object"] == "chat.completion"
    assert sim.stats.completed == 2


async def test_error_frame(client: httpx.AsyncClient) -> None:
    lines: list[str] = []
    await read_lines(client, body("error_frame", stream=True, after=4), lines)
    assert len(lines) == 5
    assert json.loads(lines[-1])["error"]["code"] == "sim_broken"
    plain = await client.post(PATH, json=body("error_frame"))
    assert plain.status_code == 200
    assert "error" in plain.json()


async def test_slow_loris_sends_a_byte_at_a_time(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    started = time.monotonic()
    writer.write(build_request(sim.root + PATH, json.dumps(body("slow_loris", byte_ms=20)).encode()))
    assert await reader.readexactly(12) == b"HTTP/1.1 200"
    assert time.monotonic() - started >= 0.2
    writer.close()
    await sim.until(lambda: sim.stats.disconnects == 1)


async def test_slow_loris_ends_at_last(client: httpx.AsyncClient, sim: Simulator) -> None:
    response = await client.post(PATH, json=body("slow_loris", byte_ms=0.01))
    assert response.json()["object"] == "chat.completion"
    assert sim.stats.completed == 1


async def test_redirect(client: httpx.AsyncClient, sim: Simulator) -> None:
    response = await client.post(PATH, json=body("redirect", location="http://127.0.0.1:9/metadata"))
    assert response.status_code == 307
    assert response.headers["location"] == "http://127.0.0.1:9/metadata"
    assert (await client.post(PATH, json=body("redirect", status=302))).status_code == 302
    with pytest.raises(httpx.TooManyRedirects):
        await client.post(PATH, json=body("redirect"), follow_redirects=True)
    assert sim.stats.arrivals > 10


async def test_huge_answers_are_made_as_they_are_read(client: httpx.AsyncClient, sim: Simulator) -> None:
    """A gigabyte that nobody reads must cost the simulator no memory, and end with its reader."""
    async with client.stream("POST", PATH, json={**CHAT, "model": "sim-huge"}) as response:
        assert int(response.headers["content-length"]) == 1 << 30
        assert (await anext(response.aiter_bytes())).startswith(b'{"id"')
        waiting = sum(each.transport.get_write_buffer_size() for each in sim.connections)
        assert waiting < 200_000
    await sim.until(lambda: sim.stats.disconnects == 1)
