"""What the simulator counts, and how it is read and reset."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from bench.simulator import Simulator

PATH = "/v1/chat/completions"
CHAT = {"model": "any", "messages": [{"role": "user", "content": "a"}]}


async def test_arrivals_and_ends_add_up(client: httpx.AsyncClient, sim: Simulator) -> None:
    before = time.time_ns() // 1_000_000
    await client.post(PATH, json=CHAT, headers={"x-task-id": "a"})
    await client.post(PATH, json={**CHAT, "sim": {"status": 500, "key": "b"}})
    with pytest.raises(httpx.TransportError):
        await client.post(PATH, json={**CHAT, "sim": {"fault": "reset", "key": "b"}})
    with pytest.raises(httpx.ReadTimeout):
        await client.post(
            PATH, json={**CHAT, "sim": {"fault": "hang", "key": "c"}}, timeout=httpx.Timeout(60, read=0.1)
        )
    await client.get("/v1/models")
    await sim.until(lambda: sim.stats.disconnects == 1)
    stats = (await client.get("/sim/stats")).json()
    assert (stats["arrivals"], stats["completed"], stats["disconnects"], stats["aborted"]) == (4, 2, 1, 1)
    assert (stats["current"], stats["peak"]) == (0, 1)
    assert stats["statuses"] == {"200": 1, "500": 1}
    assert {key: entry["arrivals"] for key, entry in stats["keys"].items()} == {"a": 1, "b": 2, "c": 1}
    assert before <= stats["disconnect_ms"][0] <= time.time_ns() // 1_000_000
    one = (await client.get("/sim/stats", params={"key": "c"})).json()
    assert (one["arrivals"], one["completed"], one["disconnects"]) == (1, 0, 1)
    assert one["disconnect_ms"] == stats["disconnect_ms"]


async def test_concurrency_is_counted(client: httpx.AsyncClient, sim: Simulator) -> None:
    tasks = [asyncio.create_task(client.post(PATH, json={**CHAT, "sim": {"fault": "hang"}})) for _ in range(5)]
    await sim.until(lambda: sim.stats.current == 5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await sim.until(lambda: sim.stats.current == 0)
    assert (sim.stats.peak, sim.stats.disconnects) == (5, 5)


async def test_a_stream_left_early_is_a_disconnect(client: httpx.AsyncClient, sim: Simulator) -> None:
    body = {**CHAT, "stream": True, "sim": {"tokens": 1000, "token_ms": 10}}
    async with client.stream("POST", PATH, json=body) as response:
        await anext(response.aiter_lines())
    await sim.until(lambda: sim.stats.disconnects == 1)
    assert sim.stats.completed == 0


async def test_reset_keeps_what_runs(client: httpx.AsyncClient, sim: Simulator) -> None:
    await client.post(PATH, json=CHAT)
    hanging = asyncio.create_task(client.post(PATH, json={**CHAT, "sim": {"fault": "hang"}}))
    await sim.until(lambda: sim.stats.current == 1)
    sim.default = sim.default.model_copy(update={"status": 503})
    assert (await client.post("/sim/reset")).status_code == 200
    assert (sim.stats.arrivals, sim.stats.completed, sim.stats.current, sim.stats.peak) == (1, 0, 1, 1)
    assert (await client.post(PATH, json=CHAT)).status_code == 200
    hanging.cancel()
    await sim.until(lambda: sim.stats.current == 0)
    assert (await client.get("/sim/nonesuch")).status_code == 404


async def test_what_arrived_can_be_looked_at(client: httpx.AsyncClient, sim: Simulator) -> None:
    await client.post(PATH, json=CHAT, headers={"authorization": "Bearer k"})
    assert sim.recent[-1].headers["authorization"] == "Bearer k"
    assert sim.recent[-1].path == PATH


async def test_an_outage_and_the_return_on_the_same_port(client: httpx.AsyncClient, sim: Simulator) -> None:
    hanging = asyncio.create_task(client.post(PATH, json={**CHAT, "sim": {"fault": "hang"}}))
    await sim.until(lambda: sim.stats.current == 1)
    port = sim.port
    await sim.close()
    with pytest.raises(httpx.TransportError):
        await hanging
    with pytest.raises(httpx.ConnectError):
        await client.post(PATH, json=CHAT)
    await sim.start()
    assert sim.port == port
    assert (await client.post(PATH, json=CHAT)).status_code == 200
    assert (sim.stats.aborted, sim.stats.disconnects) == (1, 0)


async def test_pipelined_requests_are_answered_in_order(sim: Simulator) -> None:
    slow = b'{"messages":[],"sim":{"latency_ms":50,"status":418}}'
    fast = b'{"messages":[]}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n%b\r\n%b"
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(request % (len(slow), b"", slow) + request % (len(fast), b"connection: close\r\n", fast))
    received = await reader.read()
    writer.close()
    assert received.startswith(b"HTTP/1.1 418")
    assert received.count(b"HTTP/1.1 200") == 1


async def test_what_is_not_http_is_refused(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(b"\x16\x03\x01 not http\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_expect_continue(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 14\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"prompt":"a"}')
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
