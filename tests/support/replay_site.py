"""A past to replay: a lane with real roles before a simulated model, tasks written as a door writes them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench.simulator import Simulator
from core.blobs import BlobStore, open_blobs
from core.kafka.admin import apply_topics
from core.kafka.lookup import Lookup
from core.kafka.producer import Producer, Record
from core.kafka.tail import Records, Tail
from core.queues import QueueDirectory
from core.settings import Settings
from schemas import topics
from schemas.codec import RESULT, TASK
from schemas.headers import headers
from schemas.ids import Serials
from schemas.parts import Usage
from schemas.records import Result, Task
from schemas.slices import queue_number
from streams.accounting import usage_record
from tests.support.records import task
from tests.support.results import result_of
from tests.support.roles import running, settings_for
from tests.support.waiting import eventually_async

ROLES = (("streams", "--level", "offline"), ("dispatcher",))
MODELS = '{"m": {"prompt_price": "2", "completion_price": "4", "price_unit": "0.001"}}'


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return what it printed, read as JSON."""
        assert self.code == 0, f"{self.out}\n{self.err}"
        return orjson.loads(self.out)


class ReplaySite:
    """The offline lane of one installation."""

    def __init__(self, settings: Settings, env: dict[str, str], simulator: Simulator) -> None:
        self.settings, self.env, self.simulator = settings, env, simulator
        self.producer = Producer(settings, name="past")
        self.queues = QueueDirectory(settings, name="past")
        self.blobs: BlobStore = open_blobs(settings)
        self.results: dict[str, Result] = {}
        self.repeated: Counter[str] = Counter()
        """Results by the task that they repeat."""
        self.tail = Tail(settings, name="past", topics=[settings.topic(topics.results(1))], handle=self._ended)
        self._serials = Serials(77)

    def _ended(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            result = RESULT.decode(record.value or b"")
            assert result["id"] not in self.results, "two results of one task"
            self.results[result["id"]] = result
            if result["replay_of"]:
                self.repeated[result["replay_of"]] += 1

    def new(self, queue: str, number: int, **changes: Any) -> tuple[str, Task]:
        """Make a task with a body of its own."""
        home = number % self.settings.kafka.partitions
        now_ms = time.time_ns() // 1_000_000
        made = self._serials.next(
            queue_number=queue_number(queue), level=1, mode="C", now_s=now_ms // 1000, partition=home
        )
        data = {"model": "m", "messages": [{"role": "user", "content": f"{queue} {number}"}]}
        body = orjson.dumps({**data, **changes.pop("body", {})})
        base = {"data": body, "owner": "acme", "created_ms": now_ms}
        return str(made), task(id=str(made), queue=queue, level=1, **{**base, **changes})

    async def write(self, tasks: Sequence[tuple[str, Task]]) -> list[str]:
        """Write tasks as an ingress does; returns their ids."""
        by_home: dict[tuple[str, int], list[Record]] = {}
        for task_id, one in tasks:
            described = headers(
                kind="task", ce_id=task_id, at_ms=one["created_ms"], queue=one["queue"], level=1, owner=one["owner"]
            )
            home = int(task_id.split("-")[5])
            record = Record(task_id.encode(), TASK.encode(one), described, one["created_ms"])
            by_home.setdefault((self.settings.topic(topics.tasks(1)), home), []).append(record)
        await self.producer.ship(by_home)
        return [task_id for task_id, _ in tasks]

    async def used(self, tasks: Sequence[tuple[str, Task]], state: str, *, tokens: int) -> None:
        """Write how tasks ended, where no scheduler runs that would."""
        for task_id, one in tasks:
            usage: Usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}
            ended = result_of(
                task_id, mode="callback", owner=one["owner"], state=state, queue=one["queue"], level=1,
                model=one["model"], usage=usage, finished_ms=one["created_ms"] + 10,
            )  # fmt: skip
            home = int(task_id.split("-")[5])
            await self.producer.send(self.settings.topic(topics.USAGE), home, usage_record(ended))

    async def submit(self, queue: str, count: int, **changes: Any) -> list[str]:
        """Write so many tasks into a queue and wait for their outcomes."""
        await self.queues.register(self.producer, queue)
        made = await self.write([self.new(queue, number, **changes) for number in range(count)])
        await self.ended(made)
        return made

    async def ended(self, task_ids: Sequence[str], *, within_s: float = 300) -> None:
        """Wait for the outcomes of tasks."""
        await eventually_async(
            lambda: all(one in self.results for one in task_ids), within_s=within_s, what=f"{len(task_ids)} outcomes"
        )

    async def again(self, task_ids: Sequence[str], *, within_s: float = 300) -> None:
        """Wait for an outcome of the repetition of each of these."""
        await eventually_async(
            lambda: all(self.repeated[one] for one in task_ids), within_s=within_s, what=f"{len(task_ids)} repetitions"
        )

    def command(self, *arguments: str) -> Any:
        """Begin `headrace replay …` as a process."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        pipe = asyncio.subprocess.PIPE
        return asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace.main", "replay", *arguments,
            env={**clean, **self.env, "COLUMNS": "200"}, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        )  # fmt: skip

    async def run(self, *arguments: str) -> Said:
        """Run `headrace replay …` to its end."""
        process = await self.command(*arguments)
        out, err = await process.communicate()
        return Said(process.returncode, out.decode(), err.decode())

    async def offsets(self) -> dict[str, int]:
        """Return the next offset of every partition of every topic of this installation."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka.bootstrap)
        await client.start()
        try:
            described = await client.describe_topics()
        finally:
            await client.close()
        ours = [one for one in described if one["topic"].startswith(self.settings.kafka.topic_prefix)]
        lookup = Lookup(self.settings, name="past-offsets")
        try:
            await lookup.open([one["topic"] for one in ours])
            found: dict[str, int] = {}
            for one in ours:
                tps = [TopicPartition(one["topic"], part["partition"]) for part in one["partitions"]]
                bounds = await lookup.bounds(tps)
                found |= {f"{tp.topic}/{tp.partition}": end for tp, (_, end) in bounds.items()}
        finally:
            await lookup.close()
        return found


@asynccontextmanager
async def past(kafka: str, folder: Path, *roles: tuple[str, ...], prefix: str = "past") -> AsyncIterator[ReplaySite]:
    """Create the topics and run some roles."""
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka, folder, f"{prefix}-{time.time_ns()}.", upstream__urls=[simulator.url], kafka__partitions=2,
            kafka__work_partitions=2, storage__inline_bytes=20_000,
        )  # fmt: skip
        await apply_topics(settings)
        opened = ReplaySite(settings, {**env, "HEADRACE_MODELS": MODELS}, simulator)
        await opened.producer.start()
        await opened.queues.open()
        await opened.tail.open()
        with ExitStack() as stack:
            for number, arguments in enumerate(roles):
                stack.enter_context(running(*arguments, env=env, log=folder / f"{number}.log"))
            try:
                yield opened
            finally:
                await opened.tail.close()
                await opened.queues.close()
                await opened.producer.stop()
