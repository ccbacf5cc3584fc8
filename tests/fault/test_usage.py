"""The usage topic under kills: one record per task, and its sum is that of the results and of the upstream itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bench.simulator import Simulator
from bench.simulator.answers import Answer
from bench.simulator.behaviour import Behaviour
from bench.wire import Exchange, Outcome
from core.kafka.producer import Record
from core.settings.models import Settings
from core.usage import usage_of
from schemas import ids, topics
from schemas.codec import RESULT
from schemas.common import Usage
from schemas.records import Result
from schemas.usage import UsageRecord
from streams.outputs import result_record
from tests.support.results import result_of
from tests.support.roles import running, settings_for
from tests.support.scheduler_probe import SchedulerProbe, scheduler_probe
from tests.support.waiting import eventually_async

TASKS = 400
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
PRICES = '{"sim":{"prompt_price":"0.5","completion_price":"1.5","price_unit":"0.001","currency":"EUR"}}'


class Counting(Simulator):
    """An upstream that keeps its own books: the tokens of each task that it has answered to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, Usage] = {}
        self._sent: dict[Exchange, Answer] = {}

    def arrived(self, exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:  # noqa: ARG002 - its shape
        """Note what is about to be sent."""
        self._sent[exchange] = answer

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Book an answer that went out whole."""
        super().ended(exchange, outcome)
        answer = self._sent.pop(exchange, None)
        if answer is None or answer.status != 200 or outcome is not Outcome.COMPLETED:
            return
        last = answer.frames[-2].removeprefix(b"data: ") if answer.frames else answer.body
        counted = usage_of(last.strip())
        assert counted is not None
        self.books[exchange.key or ""] = counted


def sums(records: Mapping[str, list[Any]]) -> dict[str, int]:
    """Add up the tokens of results or of usage records."""
    each = [one[0].get("usage", one[0]) or {} for one in records.values()]
    return {name: sum(counts.get(name, 0) for counts in each) for name in COUNTS}


def request(number: int) -> dict[str, Any]:
    """Make a task: plain and streamed, some that have to be tried again, some that last."""
    streamed = number % 4 == 0
    sim = {"tokens": number % 7 + 1, "fail_times": int(number % 9 == 0), "latency_ms": 600 if number % 5 == 0 else 5}
    body = {"model": "sim", "messages": [{"role": "user", "content": "x" * (number % 50)}], "sim": sim}
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {"data": orjson.dumps(body), "model": "sim", "mode": "streaming" if streamed else "callback"}


async def test_usage_adds_up_under_kills(kafka: str, tmp_path: Path) -> None:
    async with Counting() as simulator:
        settings, env = settings_for(
            kafka,
            tmp_path,
            f"usage-{time.time_ns()}.",
            upstream__urls=[simulator.url],
            streams__lease_s=3,
            dispatcher__heartbeat_s=1,
            streams__retry_base_s=0.2,
            streams__session_timeout_s=6,
        )
        env = {**env, "HEADRACE_MODELS": PRICES}
        async with scheduler_probe(settings) as probe:
            with (
                running("streams", "--level", "online", env=env, log=tmp_path / "streams.log") as streams,
                running(
                    "dispatcher", "--component", "inference", env=env, log=tmp_path / "dispatcher.log"
                ) as dispatcher,
            ):
                dice, accepted = random.Random(8), list[str]()
                for number in range(TASKS):
                    accepted += await probe.submit(**request(number))
                    if number in (TASKS // 3, TASKS // 2, TASKS * 3 // 4):
                        await asyncio.sleep(dice.uniform(0.1, 1))
                        role = streams if number != TASKS // 2 else dispatcher
                        role.kill()
                        role.start()
                await eventually_async(
                    lambda: all(probe.usage[one] for one in accepted), within_s=120, what="a usage record of each task"
                )
    assert {len(probe.results[one]) for one in accepted} == {1}
    assert {len(records) for records in probe.usage.values()} == {1}
    assert sums(probe.usage) == sums(probe.results)
    won = [one for one in accepted if probe.results[one][0]["state"] == "completed"]
    assert len(won) > TASKS * 0.9
    assert sums(probe.usage) == {name: sum(simulator.books[one][name] for one in won) for name in COUNTS}  # type: ignore[literal-required]
    for one in accepted:
        assert_same(probe.results[one][0], probe.usage[one][0])
    assert all(probe.results[one][0]["currency"] == "EUR" for one in won)


def assert_same(result: Result, usage: UsageRecord) -> None:
    """Compare what a task's two records say."""
    names = ("id", "owner", "queue", "model", "state", "attempt", "cost", "currency", "created_ms", "finished_ms")
    assert [usage[name] for name in names] == [result[name] for name in names]  # type: ignore[literal-required]


async def test_a_result_whose_usage_a_crash_cut_off_gets_it_once(kafka: str, tmp_path: Path) -> None:
    """A scheduler dies between a result and its usage, another after both: each task has one record in the end."""
    settings, env = settings_for(kafka, tmp_path, f"usage-{time.time_ns()}.", streams__session_timeout_s=6)
    async with scheduler_probe(settings) as probe:
        lacking, complete = await probe.submit(2)
        results = {one: result_of(one, finished_ms=time.time_ns() // 1_000_000) for one in (lacking, complete)}
        await write(probe, settings, results[lacking])
        await write(probe, settings, results[complete])
        await write_usage(probe, settings, results[complete])
        for attempt in range(2):
            with running("streams", "--level", "online", env=env, log=tmp_path / "streams.log"):
                [marker] = await probe.submit()
                await eventually_async(lambda marker=marker: probe.work[marker], what="a scheduler")
                await eventually_async(lambda: probe.usage[lacking], what=f"the usage, run {attempt}")
    assert [len(probe.usage[one]) for one in (lacking, complete)] == [1, 1]
    assert [len(probe.results[one]) for one in (lacking, complete)] == [1, 1]
    assert_same(results[lacking], probe.usage[lacking][0])


async def write(probe: SchedulerProbe, settings: Settings, result: Result) -> None:
    """Write a result as a scheduler does that dies right after."""
    record = result_record(result, traceparent=None)
    assert RESULT.decode(record.value or b"")["id"] == result["id"]
    await send(probe, settings.topic(topics.results(0)), result, record)


async def write_usage(probe: SchedulerProbe, settings: Settings, result: Result) -> None:
    """Write its usage too."""
    from streams.outputs import usage_record

    await send(probe, settings.topic(topics.USAGE), result, usage_record(result))


async def send(probe: SchedulerProbe, topic: str, result: Result, record: Record) -> None:
    """Write a record to the home of its task."""
    await probe.producer.send(topic, ids.parse(result["id"]).partition, record)
