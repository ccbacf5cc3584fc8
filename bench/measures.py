"""The measurements behind `make bench`: each starts what it needs, measures, and gives rows of the report."""

from __future__ import annotations

import json
import statistics
import time

from bench.cluster import KEY, Cluster, cluster, until
from bench.load import build_request, percentile, run_load
from bench.peer import celery
from bench.report import Row
from bench.simulator import Simulator
from bench.tasks import DATA, QUEUE, counting, producing, task_records
from schemas import topics
from schemas.topics import level_name

HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


def put_body(mode: str, **sim: object) -> bytes:
    """Build the body of a put."""
    data: dict[str, object] = {"model": "sim-instant", "messages": [{"role": "user", "content": "ping " * 60}]}
    if sim:
        data["sim"] = sim
    put = {"queue": QUEUE, "endpoint": "/v1/chat/completions", "response_mode": mode, "data": data}
    return json.dumps(put).encode()


async def scheduler(tasks: int) -> list[Row]:
    """Feed a backlog of new tasks to one scheduler process: one row and one work record for each, durable."""
    rows: list[Row] = []
    for level in (1, 0):
        async with cluster() as running, producing(running.settings) as producer:
            await producer.send_batch(task_records(running.settings, level, tasks))
            async with counting(running.settings, topics.status(level)) as counted:
                running.start("streams", "streams", "--level", level_name(level))
                await until(lambda: counted.keys, what="the first row")
                begun, meter = len(counted.keys), running.meter()
                with meter:
                    await counted.reaches(tasks)
            rate = (tasks - begun) / (counted.last_at - counted.first_at)
            rows.append(
                Row(
                    what=f"scheduler, durable, table + one output per event, {level_name(level)} lane",
                    figure=rate,
                    unit="events/s",
                    bar=3_000,
                    cpu_ms=meter.ms_per(tasks - begun),
                    command=f"python -m bench scheduler --tasks {tasks}",
                )
            )
    return rows


async def accept(puts: int) -> list[Row]:
    """Put callback tasks over 64 connections while only the broker and one ingress run."""
    async with cluster() as running:
        running.start("ingress", "ingress")
        await running.until_answers("/livez")
        request = build_request(running.url + "/v1/queue/put", body=put_body("callback"), headers=HEADERS)
        await until_accepting(running, request)
        await run_load(running.url, request, connections=64, total=puts // 4)
        bare = build_request(running.url + "/livez", method="GET")
        with running.meter() as meter:
            loaded = await run_load(running.url, request, connections=64, total=puts)
        idle = await run_load(running.url, bare, connections=64, total=puts)
    assert set(loaded.statuses) == {200}, loaded.statuses  # noqa: S101 - a refused put is no put
    command = f"python -m bench accept --tasks {puts}"
    return [
        Row(
            "accept over HTTP, acks=all, 64 connections",
            loaded.rate,
            "puts/s",
            1_500,
            cpu_ms=meter.ms_per(puts),
            command=command,
        ),
        Row(
            "  against a bare route of the same process",
            loaded.rate,
            "puts/s",
            idle.rate,
            bar_is="bare route",
            command=command,
        ),
        Row(
            "  answer time p99 under that load",
            percentile(loaded.latency_ms, 99),
            "ms",
            100,
            lower_is_better=True,
            command=command,
        ),
    ]


async def until_accepting(running: Cluster, request: bytes) -> None:
    """Wait until a put is answered 200: the ingress has reached Kafka and the queue is registered."""

    async def accepted() -> bool:
        return set((await run_load(running.url, request, connections=1, total=1)).statuses) == {200}

    await until(accepted, what="the first accepted put")


async def start_all(running: Cluster) -> None:
    """Start one of each role, and return when a call gets through."""
    for name in ("ingress", "dispatcher"):
        running.start(name, name)
    for level in topics.LEVELS:
        running.start(f"streams-{level}", "streams", "--level", level)
    await running.until_answers("/readyz")


async def latency(calls: int) -> list[Row]:
    """Compare blocking puts with direct calls of the same upstream, one at a time, in turn."""
    async with Simulator() as upstream, cluster(upstream__urls=upstream.url) as running:
        await start_all(running)
        put = build_request(running.url + "/v1/queue/put", body=put_body("blocking"), headers=HEADERS)
        data = json.loads(put_body("blocking"))["data"]
        direct = build_request(
            upstream.url + "/chat/completions",
            body=json.dumps(data).encode(),
            headers={"content-type": "application/json"},
        )
        await run_load(running.url, put, connections=1, total=50)
        queued: list[float] = []
        plain: list[float] = []
        with running.meter() as meter:
            for _ in range(calls // 20):
                queued += (await run_load(running.url, put, connections=1, total=20)).latency_ms
                plain += (await run_load(upstream.root, direct, connections=1, total=20)).latency_ms
        memory = running.memory_mb()
    added50 = statistics.median(queued) - statistics.median(plain)
    added99 = percentile(queued, 99) - percentile(plain, 99)
    command = f"python -m bench latency --tasks {calls}"
    cpu = meter.ms_per(len(queued))
    return [
        Row("added latency, blocking, idle, p50", added50, "ms", 25, lower_is_better=True, cpu_ms=cpu, command=command),
        Row("added latency, blocking, idle, p99", added99, "ms", 60, lower_is_better=True, command=command),
        Row(
            "resident memory of the largest role, idle",
            max(memory.values()),
            "MB",
            150,
            lower_is_better=True,
            command=command,
        ),
    ]


async def pipeline(tasks: int) -> list[Row]:
    """Send offline tasks through scheduler, dispatcher and an instant upstream, everything on this machine."""
    async with Simulator() as upstream, cluster(upstream__urls=upstream.url) as running:
        async with producing(running.settings) as producer, counting(running.settings, topics.results(1)) as counted:
            running.start("streams-offline", "streams", "--level", "offline")
            running.start("dispatcher", "dispatcher", "--component", "inference")
            # The first tasks find both roles ready; they are not measured.
            await producer.send_batch(task_records(running.settings, 1, 200))
            await counted.reaches(200)
            records = task_records(running.settings, 1, tasks)
            with running.meter() as meter:
                began = time.perf_counter()
                await producer.send_batch(records)
                await counted.reaches(tasks + 200)
        rate = tasks / (counted.last_at - began)
        peer_rate, peer_cpu = await celery(tasks, upstream=upstream.url, body=DATA.decode())
    command = f"python -m bench pipeline --tasks {tasks}"
    cpu = meter.ms_per(tasks)
    what = f"whole pipeline, {tasks:,} offline tasks, instant upstream"
    return [
        Row(what, rate, "tasks/s", 500, cpu_ms=cpu, command=command),
        Row("  against Celery 5 on Redis, same call, same run", rate, "tasks/s", peer_rate, "Celery", command=command),
        Row(
            "  CPU per task against Celery's workers",
            sum(cpu.values()),
            "ms",
            peer_cpu,
            "Celery",
            True,
            command=command,
        ),
    ]
