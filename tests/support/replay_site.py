"""Something to replay: the offline level before a simulated model, with tasks written as an ingress writes them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from click.testing import CliRunner

from bench.simulator import Simulator
from bench.simulator.answers import chat, whole
from bench.simulator.behaviour import INSTANT
from core.kafka.admin import admin, partition_counts
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.queues import QueueDirectory
from core.settings.models import Settings
from core.storage.blobs import BlobStore, open_blobs
from core.usage import usage_of
from headrace.main import main
from headrace.replay.read import with_retries
from schemas import topics
from schemas.codec import RESULT, TASK
from schemas.common import Usage
from schemas.headers import headers
from schemas.ids import Serials
from schemas.partitioning import queue_number
from schemas.records import Result, Task
from streams.outputs import result_record, usage_record
from tests.support.dispatcher_probe import dispatching
from tests.support.kafka import declared_topics, patient_lookups
from tests.support.ports import free_port
from tests.support.records import task
from tests.support.results import result_of
from tests.support.roles import running, settings_for
from tests.support.waiting import eventually_async

MODELS = '{"m": {"prompt_price": "2", "completion_price": "4", "price_unit": "0.001"}}'
NamedTask = tuple[str, Task]


class CommandResult(NamedTuple):
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
    """The topics of one installation, and what happens at its offline level."""

    def __init__(self, settings: Settings, env: dict[str, str], simulator: Simulator) -> None:
        self.settings, self.simulator = settings, simulator
        self.env = {**env, "HEADRACE_URL": f"http://127.0.0.1:{settings.ingress.port}", "HEADRACE_MODELS": MODELS}
        self.producer = Producer(settings, name="replay-site")
        self.queues = QueueDirectory(settings, name="replay-site")
        self.blobs: BlobStore = open_blobs(settings)
        self.results: dict[str, Result] = {}
        self.repeated: Counter[str] = Counter()
        """Results by the task that they repeat."""
        self.tail = TopicFollower(
            settings, name="replay-site", topics=[settings.topic(topics.results(1))], handle=self._on_results
        )
        self._serials = Serials(77)

    def _on_results(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            result = RESULT.decode(record.value or b"")
            assert result["id"] not in self.results, "two results of one task"
            self.results[result["id"]] = result
            if result["replay_of"]:
                self.repeated[result["replay_of"]] += 1

    def new(self, queue: str, number: int, **changes: Any) -> NamedTask:
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

    async def write(self, tasks: Sequence[NamedTask]) -> list[str]:
        """Write tasks as an ingress does; returns their ids."""
        by_home: dict[tuple[str, int], list[Record]] = {}
        for task_id, one in tasks:
            described = headers(
                kind="task", ce_id=task_id, at_ms=one["created_ms"], queue=one["queue"], level=1, owner=one["owner"]
            )
            record = Record(task_id.encode(), TASK.encode(one), described, one["created_ms"])
            by_home.setdefault((self.settings.topic(topics.tasks(1)), _home(task_id)), []).append(record)
        await self.producer.send_batch(by_home)
        return [task_id for task_id, _ in tasks]

    async def write_past(self, tasks: Sequence[NamedTask]) -> list[str]:
        """Write tasks with what the simulator answers to them, as if they had run long ago; returns their ids.

        Before a scheduler starts: it begins to read behind them, so 10,000 cost the seconds of their encoding.
        """
        by_home: dict[tuple[str, int], list[Record]] = {}
        for task_id, one in tasks:
            body = whole(chat(orjson.loads(one["data"] or b""), INSTANT))
            times = dict.fromkeys(("created_ms", "started_ms", "finished_ms"), one["created_ms"])
            result = result_of(
                task_id,
                mode=one["mode"],
                owner=one["owner"],
                queue=one["queue"],
                level=1,
                model=one["model"],
                upstream=self.simulator.url,
                body=body,
                usage=usage_of(body),
                **times,
            )
            record = result_record(result, traceparent=None)
            by_home.setdefault((self.settings.topic(topics.results(1)), _home(task_id)), []).append(record)
        await self.producer.send_batch(by_home)
        made = await self.write(tasks)
        await self._commit_inputs()
        return made

    async def _commit_inputs(self) -> None:
        """Commit everything that is written as read by the schedulers."""
        ends = await self._ends([self.settings.topic(name(1)) for name in (topics.tasks, topics.events)])
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka.bootstrap, group_id=self.settings.topic("scheduler.offline")
        )
        await consumer.start()
        try:
            consumer.assign([*ends])
            await consumer.commit(ends)
        finally:
            await consumer.stop()

    async def write_usage(self, tasks: Sequence[NamedTask], state: str, *, tokens: int) -> None:
        """Write how tasks ended, where no scheduler runs that would."""
        usage: Usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}
        records = []
        for task_id, one in tasks:
            result = result_of(
                task_id,
                mode="callback",
                owner=one["owner"],
                state=state,
                queue=one["queue"],
                level=1,
                model=one["model"],
                usage=usage,
                finished_ms=one["created_ms"] + 10,
            )
            records.append((self.settings.topic(topics.USAGE), _home(task_id), usage_record(result)))
        await self.producer.send_all(records)

    async def submit(self, queue: str, count: int, **changes: Any) -> list[str]:
        """Write so many tasks into a queue and wait for their results."""
        await self.queues.register(self.producer, queue)
        made = await self.write([self.new(queue, number, **changes) for number in range(count)])
        await self.wait_for_results(made)
        return made

    async def wait_for_results(self, task_ids: Sequence[str], *, within_s: float = 300) -> None:
        """Wait for the results of tasks."""
        await self._wait_for(task_ids, self.results.__contains__, within_s=within_s, what="results")

    async def wait_for_repetitions(self, task_ids: Sequence[str], *, within_s: float = 300) -> None:
        """Wait for a result of the repetition of each of these."""
        await self._wait_for(task_ids, self.repeated.__contains__, within_s=within_s, what="repetitions")

    async def _wait_for(self, task_ids: Iterable[str], there: Any, *, within_s: float, what: str) -> None:
        missing = list(task_ids)

        def complete() -> bool:
            while missing and there(missing[-1]):
                missing.pop()
            return not missing

        await eventually_async(complete, within_s=within_s, what=f"all of the {len(missing)} {what}")

    def start(self, *arguments: str) -> Any:
        """Begin `headrace replay …` as a process."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        pipe = asyncio.subprocess.PIPE
        return asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.main",
            "replay",
            *arguments,
            env={**clean, **self.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
        )

    async def run(self, *arguments: str) -> CommandResult:
        """Run `headrace replay …` to its end, in a thread of this process."""
        foreign = {name: None for name in os.environ if name.startswith("HEADRACE_")}
        env = {**foreign, **self.env, "COLUMNS": "200"}
        result = await asyncio.to_thread(CliRunner().invoke, main, ["replay", *arguments], env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return CommandResult(result.exit_code, result.stdout, result.stderr)

    async def ends_of(self, *names: str) -> dict[str, int]:
        """Return the next offset of every partition of some topics, or of all that this installation has."""
        wanted = [self.settings.topic(name) for name in names]
        if not names:
            async with admin(self.settings) as client:
                there = await client.list_topics()
            wanted = [name for name in there if name.startswith(self.settings.kafka.topic_prefix)]
        return {f"{tp.topic}/{tp.partition}": end for tp, end in (await self._ends(wanted)).items()}

    async def _ends(self, names: Sequence[str]) -> dict[TopicPartition, int]:
        async with admin(self.settings) as client:
            counts = await partition_counts(client, names)
        tps = [TopicPartition(name, number) for name in names for number in range(counts[name])]
        lookup = LogReader(self.settings, name="replay-site-ends")
        try:
            await lookup.open_with_retry(names)
            bounds = await with_retries(lambda: lookup.bounds(tps))
        finally:
            await lookup.close()
        return {tp: end for tp, (_, end) in bounds.items()}


def _home(task_id: str) -> int:
    return int(task_id.split("-")[5])


@asynccontextmanager
async def replay_site(kafka: str, folder: Path) -> AsyncIterator[ReplaySite]:
    """Create the topics; no role runs."""
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka,
            folder,
            f"{folder.name}-{time.time_ns()}.",
            upstream__urls=[simulator.url],
            ingress__port=free_port(),
            storage__inline_bytes=20_000,
            dispatcher__shutdown_grace_s=1,
        )
        async with declared_topics(settings):
            site = ReplaySite(settings, env, simulator)
            await site.producer.start()
            await site.queues.open()
            await site.tail.open()
            try:
                with patient_lookups():
                    yield site
            finally:
                await site.tail.close()
                await site.queues.close()
                await site.producer.stop()


@asynccontextmanager
async def working(site: ReplaySite, folder: Path) -> AsyncIterator[None]:
    """Run a scheduler of the offline level as a process, and a dispatcher in this one."""
    with running("streams", "--level", "offline", env=site.env, log=folder / "streams.log"):
        async with dispatching(site.settings):
            yield
