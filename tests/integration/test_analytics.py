"""The example of docs/reference/analytics-fields.md runs, and its tables name every field."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.kafka.admin import ensure_topics
from core.kafka.producer import Producer
from core.settings.models import Settings
from schemas import codec, ids, topics
from schemas.records import Result
from streams.outputs import usage_record
from tests.support.kafka import own_prefix
from tests.support.markdown import blocks
from tests.support.memory_server import served_in_memory
from tests.support.records import task_id
from tests.support.results import result_of
from tests.support.roles import settings_for

PAGE = (Path(__file__).parents[2] / "docs/reference/analytics-fields.md").read_text(encoding="utf-8")


def at(day: int, hour: int) -> int:
    return int(datetime(2026, 1, day, hour, 59, 59, tzinfo=UTC).timestamp() * 1000)


def results() -> list[Result]:
    """Make those of the page's example; the first is there twice, as after a loss of the cluster's."""

    def one(day: int, hour: int, model: str, tokens: int, cost: str | None) -> Result:
        usage = {"prompt_tokens": tokens - 2, "completion_tokens": 2, "total_tokens": tokens}
        currency = None if cost is None else "EUR"
        home = task_id(partition=day % 3)
        return result_of(home, model=model, usage=usage, cost=cost, currency=currency, finished_ms=at(day, hour))

    big = "gpt-oss-120b"
    made = [one(30, 0, big, 1500, "0.0020000"), one(30, 23, big, 1500, "0.0020000"), one(31, 0, big, 1500, "0.0020000")]
    return [*made, made[0], one(31, 12, "smollm2", 12, None)]


async def write(settings: Settings) -> None:
    producer = Producer(settings, name="analytics")
    await producer.start()
    records = [(ids.parse(one["id"]).partition, usage_record(one)) for one in results()]
    await producer.send_all([(settings.topic(topics.USAGE), home, record) for home, record in records])
    await producer.stop()


async def test_the_example_answers_its_question(kafka: str, tmp_path: Path) -> None:
    settings, _ = settings_for(kafka, tmp_path, f"analytics-{time.time_ns()}.")
    example, shown = (block.text for block in blocks(PAGE)[-2:])
    assert '"headrace.usage"' in example
    example = example.replace("headrace.usage", settings.topic(topics.USAGE))
    async with own_prefix(settings), served_in_memory(Settings(data_dir=tmp_path)) as served:
        [usage] = [topic for topic in topics.declared(partitions=2) if topic.name == topics.USAGE]
        await ensure_topics(settings, [usage])
        await write(settings)
        env = {**os.environ, "HEADRACE_KAFKA_BOOTSTRAP": kafka, "HEADRACE_URL": f"http://127.0.0.1:{served.port}"}
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", example],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == shown


@pytest.mark.parametrize(("record", "heading"), [("result", "Results"), ("usage", "Usage")])
def test_the_tables_know_every_field(record: str, heading: str) -> None:
    section = PAGE.partition(f"## {heading}, field by field")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    fields = [field["name"] for field in json.loads(codec.schema_text(codec.latest(record)))["fields"]]
    assert sorted(told) == sorted(fields)
