"""`python -m bench webhooks`: callbacks per second, beside a host that hangs, and the memory of those that wait."""

from __future__ import annotations

import asyncio
import time

import orjson

from bench.cluster import Cluster, cluster, until
from bench.report import Row
from bench.tasks import QUEUE
from bench.wire import Exchange, RawServer, head
from core.kafka.producer import Producer, Record
from schemas import topics
from schemas.codec import RESULT
from schemas.ids import Serials
from schemas.partitioning import queue_number
from schemas.records import NO_ORIGIN, Result

WAITING = 10_000
BODY = orjson.dumps({"choices": [{"message": {"role": "assistant", "content": "word " * 200}}]})
OK = head(200, "text/plain", 2) + b"ok"
BAD = head(500, "text/plain", 2) + b"no"


class Counter(RawServer):
    """Counts requests, and answers them: 200, 500 on /bad, never on /hang."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.last_at = 0.0

    def handle(self, exchange: Exchange) -> None:
        """Answer by path."""
        if exchange.request.path == "/hang":
            exchange.spawn(_never(), name="hang")
            return
        self.count += 1
        self.last_at = time.perf_counter()
        exchange.finish(BAD if exchange.request.path == "/bad" else OK)


async def _never() -> None:
    await asyncio.Event().wait()


async def webhooks(count: int) -> list[Row]:
    """Deliver results to a receiver on this machine from one sender process."""
    command = f"python -m bench webhooks --tasks {count}"
    async with Counter() as receiver, Counter() as dead, cluster(webhooks__retry_delays="300,300") as running:
        running.start("sender", "dispatcher", "--component", "webhooks")
        producer = Producer(running.settings, name="bench")
        await producer.start()
        await _write(running, producer, 200, receiver.root)
        await until(lambda: receiver.count >= 200, what="the first callbacks")
        idle_mb = running.memory_mb()["sender"]
        with running.meter() as meter:
            rate = await _rate(running, producer, receiver, count)
        cpu = meter.ms_per(count)
        await _write(running, producer, count // 5, f"{dead.root}/hang")
        beside = await _rate(running, producer, receiver, count)
        before = receiver.count
        await _write(running, producer, WAITING, f"{receiver.root}/bad")
        await until(lambda: receiver.count >= before + WAITING, what="the first attempt of each", within_s=400)
        await asyncio.sleep(3)  # the last of them are written, and garbage is collected as it is in a running process
        waiting_mb = running.memory_mb()["sender"]
        await producer.stop()
    return [
        Row("callbacks, one sender process, local receiver", rate, "callbacks/s", 500, cpu_ms=cpu, command=command),
        Row(
            "  while another host hangs, against without",
            beside,
            "callbacks/s",
            rate,
            bar_is="without",
            command=command,
        ),
        Row(
            f"memory of {WAITING:,} callbacks that wait, above idle",
            max(0.1, waiting_mb - idle_mb),
            "MB",
            100,
            lower_is_better=True,
            command=command,
        ),
    ]


async def _rate(running: Cluster, producer: Producer, receiver: Counter, count: int) -> float:
    before, began = receiver.count, time.perf_counter()
    await _write(running, producer, count, receiver.root)
    await until(lambda: receiver.count >= before + count, what="every callback", within_s=120)
    return count / (receiver.last_at - began)


async def _write(running: Cluster, producer: Producer, count: int, url: str) -> None:
    serials, now_ms = Serials(_slot()), time.time_ns() // 1_000_000
    topic = running.settings.topic(topics.results(0))
    records: dict[tuple[str, int], list[Record]] = {}
    for number in range(count):
        home = number % running.settings.kafka.partitions
        task_id = str(
            serials.next(queue_number=queue_number(QUEUE), level=0, mode="C", now_s=now_ms // 1000, partition=home)
        )
        result = _result(task_id, url, now_ms)
        records.setdefault((topic, home), []).append(Record(task_id.encode(), RESULT.encode(result), [], now_ms))
    await producer.send_batch(records)


_slots = iter(range(1, 1000))


def _slot() -> int:
    return next(_slots)


def _result(task_id: str, url: str, now_ms: int) -> Result:
    return {
        "id": task_id,
        "state": "completed",
        "queue": QUEUE,
        "level": 0,
        "endpoint": "/v1/chat/completions",
        "mode": "callback",
        "owner": "bench",
        "model": "sim-instant",
        "callback_url": url,
        "trace_id": None,
        "attempt": 1,
        "worker": None,
        "upstream": None,
        "status_code": 200,
        "body": BODY,
        "body_ref": None,
        "content_type": "application/json",
        "error_code": None,
        "error_message": None,
        "usage": None,
        "chunks": 0,
        "created_ms": now_ms,
        "started_ms": now_ms,
        "finished_ms": now_ms,
        "callback_events": [],
        **NO_ORIGIN,
        "request_digest": None,
        "lost_workers": 0,
        "first_token_ms": None,
        "cost": None,
        "currency": None,
    }
