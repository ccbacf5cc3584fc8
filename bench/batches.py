"""`python -m bench batches`: one batch of short lines from create to completed, and what it costs the online tasks."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp
import orjson

from bench.cluster import KEY, Cluster, cluster
from bench.load import build_request, run_load
from bench.measures import HEADERS, put_body, start_all
from bench.report import Row
from bench.simulator import Simulator

AUTH = {"authorization": f"Bearer {KEY}", "x-headrace-dialect": "openai"}
SAMPLE = 20


async def batches(lines: int) -> list[Row]:
    """Run a batch on everything that a stack has, an instant upstream behind it, online calls beside it."""
    command = f"python -m bench batches --tasks {lines}"
    async with Simulator() as upstream, cluster(upstream__urls=upstream.url) as running:
        await start_all(running)
        put = build_request(running.url + "/v1/queue/put", body=put_body("blocking"), headers=HEADERS)
        await run_load(running.url, put, connections=1, total=50)
        idle = await _sampled(running, put, _counted(5 * SAMPLE))
        async with aiohttp.ClientSession(running.url, headers=AUTH) as session:
            peaks: dict[str, float] = {}
            batch_id, began = await _create(session, lines), time.perf_counter()
            with running.meter() as meter:
                beside = await _sampled(running, put, lambda _: _goes_on(session, batch_id, running, peaks))
            seconds = time.perf_counter() - began
            output = await (await session.get(f"/v1/batches/{batch_id}/output")).read()
    assert output.count(b"\n") == lines, "not every line is in the output"  # noqa: S101 - else the figures mean nothing
    before, during = statistics.median(idle), statistics.median(beside)
    what = f"batch of {lines:,} short lines, create to completed, online calls beside it"
    return [
        Row(
            what, seconds, "s", 120 * lines / 50_000, lower_is_better=True, cpu_ms=meter.ms_per(lines), command=command
        ),
        Row("  lines per second", lines / seconds, "lines/s", 417, command=command),
        Row("  memory of the dispatcher, peak", peaks["dispatcher"], "MB", 150, "bar", True, command=command),
        Row("  p50 of an online call meanwhile", during, "ms", before * 1.25 + 20, "idle + 25 % + 20 ms", True),
    ]


async def _create(session: aiohttp.ClientSession, lines: int) -> str:
    """Upload a file and create its batch; returns the batch's id."""
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    body = {"model": "sim-instant", "messages": [{"role": "user", "content": "ping"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    text = b"".join(orjson.dumps({"custom_id": f"line-{number}", **line}) + b"\n" for number in range(lines))
    form.add_field("file", text, filename="lines.jsonl", content_type="application/jsonl")
    async with session.post("/v1/files", data=form) as answer:
        file = await answer.json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    async with session.post("/v1/batches", json=asked) as answer:
        return str((await answer.json())["id"])


async def _goes_on(session: aiohttp.ClientSession, batch_id: str, running: Cluster, peaks: dict[str, float]) -> bool:
    """Look at the batch and at the memory; False once the batch is completed."""
    for name, size in running.memory_mb().items():
        peaks[name] = max(peaks.get(name, 0), size)
    async with session.get(f"/v1/batches/{batch_id}") as answer:
        batch = await answer.json()
    if batch["status"] in ("failed", "expired", "cancelled"):
        raise RuntimeError(f"the batch was not completed: {batch}")
    return bool(batch["status"] != "completed")


def _counted(total: int) -> Callable[[int], Awaitable[bool]]:
    async def goes_on(made: int) -> bool:
        return made < total

    return goes_on


async def _sampled(running: Cluster, put: bytes, goes_on: Callable[[int], Awaitable[bool]]) -> list[float]:
    """Make online calls, one at a time and some per second, for as long as something goes on."""
    found: list[float] = []
    while await goes_on(len(found)):
        found += (await run_load(running.url, put, connections=1, total=SAMPLE // 4)).latency_ms
        await asyncio.sleep(0.1)
    return found
