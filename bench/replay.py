"""How fast a dry run of `headrace replay` reads: everything decoded, and most of it passed over by its headers."""

from __future__ import annotations

import time

from bench.cluster import cluster
from bench.report import Row
from bench.tasks import producing, task_records
from core.kafka.producer import Record
from core.settings.models import Settings
from headrace.replay.choice import Choice
from headrace.replay.estimate import Estimate, estimated
from headrace.replay.run import opened
from schemas import topics
from schemas.codec import TASK, USAGE
from schemas.headers import headers
from schemas.records import Task
from schemas.usage import UsageRecord

CHUNK = 10_000
BAR = 20_000


def usage_record(task: Task) -> Record:
    """Make the record that accounts for a task."""
    usage: UsageRecord = {
        "id": task["id"] or "",
        "owner": task["owner"],
        "queue": task["queue"],
        "level": task["level"],
        "model": task["model"],
        "endpoint": task["endpoint"],
        "upstream": "http://127.0.0.1:1/v1",
        "state": "completed",
        "status_code": 200,
        "attempt": 1,
        "prompt_tokens": 70,
        "completion_tokens": 8,
        "total_tokens": 78,
        "cost": None,
        "currency": None,
        "created_ms": task["created_ms"],
        "started_ms": task["created_ms"],
        "finished_ms": task["created_ms"],
        "batch_id": None,
        "replay_of": None,
    }
    described = headers(
        kind="usage.completed",
        ce_id=usage["id"],
        at_ms=task["created_ms"],
        queue=task["queue"],
        level=1,
        owner=task["owner"],
    )
    return Record(usage["id"].encode(), USAGE.encode(usage), described, task["created_ms"])


async def dry(settings: Settings, choice: Choice) -> tuple[Estimate, float, float]:
    """Time a dry run; returns what it found, seconds, and seconds of CPU."""
    began, cpu = time.perf_counter(), time.process_time()
    async with opened(settings) as lookup:
        found = await estimated(
            settings, lookup, choice, now_ms=time.time_ns() // 1_000_000, on_read=lambda _done, _total: None
        )
    return found, time.perf_counter() - began, time.process_time() - cpu


async def replay(count: int) -> list[Row]:
    """Read so many tasks and what they used."""
    async with cluster() as running, producing(running.settings) as producer:
        settings = running.settings
        for homes in task_records(settings, 1, count).items():
            (topic, home), records = homes
            for begin in range(0, len(records), CHUNK):
                piece = records[begin : begin + CHUNK]
                used = [usage_record(TASK.decode(record.value or b"")) for record in piece]
                await producer.send_batch({(topic, home): piece, (settings.topic(topics.USAGE), home): used})
        every, every_s, every_cpu_s = await dry(settings, Choice(levels=(1,)))
        none, none_s, none_cpu_s = await dry(settings, Choice(levels=(1,), queues=("another",)))
    if every.tally.total != count or none.tally.total:
        raise RuntimeError(f"{every.tally.total} and {none.tally.total} tasks were chosen of {count} and none")
    command = f"python -m bench replay --tasks {count}"
    return [
        Row(
            what="dry run, every task decoded and counted with its usage",
            figure=every.read / every_s,
            unit="records/s",
            bar=BAR,
            cpu_ms={"replay": every_cpu_s * 1000 / every.read},
            command=command,
        ),
        Row(
            what="dry run, all passed over by their headers",
            figure=none.read / none_s,
            unit="records/s",
            bar=BAR,
            cpu_ms={"replay": none_cpu_s * 1000 / none.read},
            command=command,
        ),
    ]
