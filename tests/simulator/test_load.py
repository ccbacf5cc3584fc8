"""The load generator, the CPU meter and the report."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time

import pytest

from bench.load import build_request, percentile, run_load
from bench.procstat import CpuMeter, cpu_seconds, resident_mb
from bench.report import Report, Row
from bench.simulator import Simulator
from bench.sink import Sink


def chat(server: Simulator, /, **more: object) -> bytes:
    """Make the bytes of a chat request."""
    return build_request(server.url + "/chat/completions", json.dumps({"messages": [], **more}).encode())


async def test_each_request_is_sent_once_and_answered(sim: Simulator) -> None:
    requests = [
        build_request(sim.url + "/chat/completions", b'{"messages":[]}', headers={"x-task-id": f"t{index}"})
        for index in range(500)
    ]
    seen: list[tuple[int, int, bytes]] = []
    result = await run_load(sim.url, requests, connections=8, total=500, on_answer=lambda *answer: seen.append(answer))
    assert result.statuses == {200: 500}
    assert not result.errors
    assert result.answered == len(result.first_byte_ms) == 500
    assert sorted(index for index, _, _ in seen) == list(range(500))
    assert all(status == 200 and json.loads(body)["object"] == "chat.completion" for _, status, body in seen)
    assert {entry.arrivals for entry in sim.stats.keys.values()} == {1}
    assert sim.stats.peak <= 8
    assert result.rate > 0
    assert result.as_json()["statuses"] == {"200": 500}


async def test_a_duration_ends_the_load(sim: Simulator) -> None:
    started = time.monotonic()
    async with asyncio.timeout(60):
        result = await run_load(sim.url, lambda _: chat(sim), connections=2, duration_s=0.2)
    assert time.monotonic() - started >= 0.2
    assert result.answered == sim.stats.arrivals > 0
    with pytest.raises(ValueError, match="total"):
        await run_load(sim.url, chat(sim), connections=1)


async def test_first_byte_and_complete_response_are_distinguished(sim: Simulator) -> None:
    request = chat(sim, stream=True, sim={"tokens": 4, "token_ms": 30})
    result = await run_load(sim.url, request, connections=3, total=3)
    assert max(result.first_byte_ms) < min(result.latency_ms)
    assert min(result.latency_ms) >= 150


async def test_broken_connections_are_counted_and_replaced(sim: Simulator) -> None:
    requests = [chat(sim, sim={"fault": "reset"}), chat(sim), chat(sim, sim={"status": 500})]
    result = await run_load(sim.url, requests, connections=2, total=30)
    assert result.statuses == {200: 10, 500: 10}
    assert sum(result.errors.values()) == 10


async def test_unanswered_and_refused_requests_end_as_errors(sim: Simulator) -> None:
    hung = await run_load(sim.url, chat(sim, sim={"fault": "hang"}), connections=3, total=5, timeout_s=0.2)
    assert hung.errors == {"TimeoutError": 3}
    await sim.close()
    refused = await run_load(sim.url, chat(sim), connections=2, total=3)
    assert sum(refused.errors.values()) == 3
    assert refused.answered == 0


async def test_it_can_load_a_sink(sink_url: tuple[Sink, str]) -> None:
    sink, url = sink_url
    await run_load(url, build_request(url, b'{"request_id":"t"}'), connections=4, total=100)
    assert len(sink.received["t"]) == 100


@pytest.fixture
async def sink_url():  # type: ignore[no-untyped-def]
    """A sink and its address."""
    async with Sink() as sink:
        yield sink, sink.url


def test_percentiles() -> None:
    assert math.isnan(percentile([], 50))
    assert [percentile([3.0, 1.0, 2.0, 4.0], p) for p in (0, 50, 75, 99, 100)] == [1, 2, 3, 4, 4]


def test_the_meter_reads_this_process() -> None:
    with CpuMeter({"me": os.getpid(), "nobody": 2**22 + 1}) as meter:
        stop = time.process_time() + 0.1
        while time.process_time() < stop:
            pass
    assert 0.05 <= meter.spent["me"] < 5
    assert "nobody" not in meter.spent
    assert meter.ms_per(10)["me"] == pytest.approx(meter.spent["me"] * 100)
    assert (resident_mb(os.getpid()) or 0) > 10
    assert cpu_seconds(2**22 + 1) is None


def test_the_report_shows_ratio_cpu_and_command() -> None:
    report = Report()
    report.add(Row("accept", 3000.4, "puts/s", 1500, cpu_ms={"ingress": 0.5, "broker": 0.25}, command="make bench"))
    report.add(Row("latency p50", 30.0, "ms", 25, bar_is="budget", lower_is_better=True))
    text = report.render()
    assert "cores" in text.splitlines()[0]
    assert "aiokafka" in text.splitlines()[0]
    [accept] = [line for line in text.splitlines() if line.startswith("| accept ")]
    assert [cell.strip() for cell in accept.split("|")][2:4] == ["3,000 puts/s", "2.00x bar"]
    assert "0.75 (ingress 0.50, broker 0.25)" in text
    assert "`make bench`" in text
    assert [row.what for row in report.missed] == ["latency p50"]
    assert json.loads(json.dumps(report.as_json()))["rows"][0]["ratio"] == pytest.approx(2.0, abs=0.01)
