"""The scheduler's side of batches on a real broker: exact counts whatever dies, and both tables come back.

The tests share one scheduler, and each leaves one that runs. Their batches are their own.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.kafka.producer import Record
from core.kafka.topic_follower import Records, TopicFollower
from schemas import bitmap, topics
from schemas.batches import Batch
from schemas.codec import BATCH, EVENT, TASK
from schemas.events import event
from schemas.headers import headers
from schemas.ids import parse_batch
from schemas.records import Event
from streams.state_machine.batches import line_task_id
from tests.support.memory_batch_log import QUEUE_NUMBER, batch_id, created, line, part, validated
from tests.support.records import failure, finished, outcome
from tests.support.roles import Role, running, settings_for
from tests.support.scheduler_probe import QUEUE, SchedulerProbe, scheduler_probe
from tests.support.waiting import eventually_async

LINES = 300
WITHIN_S = 180
USAGE = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}


class Stage:
    """An offline scheduler process, and who feeds it, works and writes."""

    def __init__(self, probe: SchedulerProbe, folder: Path, env: dict[str, str]) -> None:
        self.probe, self.folder = probe, folder
        self._env = env
        self._roles = ExitStack()
        self._count = itertools.count()
        self._serials = itertools.count(1)
        self.rows: dict[str, list[Batch | None]] = {}
        self.now_ms = time.time_ns() // 1_000_000
        self.role = self.another()

    def another(self) -> Role:
        """Start a scheduler."""
        log = self.folder / f"streams-{next(self._count)}.log"
        return self._roles.enter_context(running("streams", "--level", "offline", env=self._env, log=log))

    def close(self) -> None:
        """End the schedulers."""
        self._roles.close()

    def see(self, _: object, records: Records) -> None:
        """Take what is written about batches."""
        for record in records:
            row = BATCH.decode(record.value) if record.value else None
            self.rows.setdefault((record.key or b"").decode(), []).append(row)

    def row(self, one: str) -> Batch:
        """Return the newest row of a batch."""
        row = self.rows[one][-1]
        assert row is not None
        return row

    def states(self, one: str) -> list[str]:
        """Return the states that a batch went through."""
        told = [row["state"] if row is not None else "removed" for row in self.rows.get(one, [])]
        return [state for at, state in enumerate(told) if not at or told[at - 1] != state]

    async def until(self, one: str, state: str) -> None:
        """Wait until a batch is in a state."""
        what = f"{state} of {one}"
        await eventually_async(lambda: self.states(one)[-1:] == [state], within_s=WITHIN_S, what=what)

    async def tell(self, *said: Event) -> None:
        """Write events about batches."""
        topic = self.probe.settings.topic(topics.events(1))
        records = [Record(one["id"].encode(), EVENT.encode(one)) for one in said]
        homes = [parse_batch(one["id"]).partition for one in said]
        await self.probe.producer.send_all([(topic, home, record) for home, record in zip(homes, records, strict=True)])

    async def create(self, total: int, *, home: int = 1, window_ms: int = 86_400_000) -> Batch:
        """Create a batch and wait until it is in progress."""
        one = batch_id(next(self._serials), home=home, created_ms=self.now_ms)
        wanted = {"queue": QUEUE, "created_ms": self.now_ms, "expires_ms": self.now_ms + window_ms}
        await self.tell(created(one, **wanted))
        await self.until(one, "validating")  # both at once may be one transaction, without a state record between them
        await self.tell(validated(one, total))
        await self.until(one, "in_progress")
        return self.row(one)

    async def feed(self, batch: Batch, begin: int, end: int) -> None:
        """Write lines as the feeder does; known ones change nothing."""
        topic, home = self.probe.settings.topic(topics.tasks(1)), parse_batch(batch["id"]).partition
        records = []
        for number in range(begin, end):
            made = line(batch, number)
            described = headers(kind="task", ce_id=made.task_id, at_ms=self.now_ms)
            records.append((topic, home, Record(made.task_id.encode(), TASK.encode(made.task), described)))
        await self.probe.producer.send_all(records)

    async def work(self) -> None:
        """Answer whatever was handed out; every tenth line gets an error."""
        todo, self.probe._todo = self.probe._todo, []
        good, bad = outcome(usage=USAGE), failure(retriable=False, status_code=400)
        answers = [
            finished(one["id"], attempt=one["attempt"], result=bad if int(one["id"][-6:]) % 10 == 0 else good)
            for one in todo
        ]
        await self.probe.send_events(*answers)


@pytest.fixture(scope="module")
async def shared(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Run the scheduler of all tests."""
    folder = tmp_path_factory.mktemp("streams")
    settings, env = settings_for(
        kafka, folder, f"batch{time.time_ns()}.", streams__lease_s=60, streams__session_timeout_s=6
    )
    async with scheduler_probe(settings, 1) as probe:
        made = Stage(probe, folder, env)
        tail = TopicFollower(settings, name="batches", topics=[settings.topic(topics.BATCHES)], handle=made.see)
        try:
            await tail.open()
            await eventually_async(lambda: probe.heartbeats, within_s=WITHIN_S, what="the first heartbeat")
            yield made
        finally:
            await asyncio.to_thread(made.close)
            await tail.close()


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """Return the stage as if nothing had been handed out yet."""
    shared.now_ms = time.time_ns() // 1_000_000
    shared.probe._todo.clear()
    return shared


async def test_kill_9_in_the_middle_of_a_batch_leaves_exact_counts(stage: Stage) -> None:
    batch = await stage.create(LINES)
    one, probe = batch["id"], stage.probe
    await stage.feed(batch, 0, 100)
    for reached in (30, 150):
        await _worked(stage, one, reached)
        await asyncio.to_thread(stage.role.kill)
        await stage.feed(batch, 40, 200)  # some lines again, as after a restart of the submitter
        stage.role.start()
    await stage.feed(batch, 200, LINES)
    await _worked(stage, one, LINES)
    await stage.until(one, "finalizing")
    row, ids = stage.row(one), [line_task_id(batch, number) for number in range(LINES)]
    assert (row["completed"], row["failed"], row["ending"]) == (LINES - LINES // 10, LINES // 10, "completed")
    assert bitmap.count(row["ended"]) == row["fed"] == LINES
    assert row["usage"] == {name: count * row["completed"] for name, count in USAGE.items()}
    await eventually_async(lambda: all(probe.results[task_id] for task_id in ids))
    assert {len(probe.results[task_id]) for task_id in ids} == {1}
    offsets = [probe.result_offsets[task_id] for task_id in ids]
    assert (row["written_to"], row["last_result"]) == (min(offsets), max(offsets))
    told = [seen for seen in stage.rows[one] if seen is not None]
    assert all(seen["completed"] + seen["failed"] == bitmap.count(seen["ended"]) <= seen["fed"] for seen in told)
    begin, end = min(offsets), max(offsets) + 1
    await stage.tell(
        part(one, begin, begin + 10, set(range(100)), name="a"),
        part(one, begin, end, set(range(LINES)), name="frozen", last=True),
        part(one, begin + 10, end, set(range(100, LINES)), errors=20, name="b", last=True),
    )
    await stage.until(one, "completed")
    assert [piece["token"] for piece in stage.row(one)["parts"]] == ["a", "b"]
    assert stage.states(one) == ["validating", "in_progress", "finalizing", "completed"]


async def test_both_tables_come_back_and_a_stop_ends_what_runs(stage: Stage) -> None:
    probe = stage.probe
    cancelled = await stage.create(20)
    expired = await stage.create(20, window_ms=15_000)
    assert expired["stamp_s"] == cancelled["stamp_s"] + 1
    for batch in (cancelled, expired):
        await stage.feed(batch, 0, 10)
    ids = [line_task_id(batch, number) for batch in (cancelled, expired) for number in range(10)]
    await eventually_async(lambda: all(probe.work[task_id] for task_id in ids), within_s=WITHIN_S)
    await asyncio.to_thread(stage.role.kill)
    shutil.rmtree(stage.folder / "streams-offline")
    stage.role.start()
    one = cancelled["id"]
    await stage.tell(
        event("batch_cancel", at_ms=1, task_id=one, owner="somebody"),
        event("batch_cancel", at_ms=1, task_id=one, owner="key-1"),
    )
    await stage.until(one, "cancelling")
    await stage.feed(cancelled, 10, 20)  # too late
    await stage.until(expired["id"], "finalizing")
    await eventually_async(lambda: all(probe.results[task_id] for task_id in ids), within_s=WITHIN_S)
    for batch, code in ((cancelled, "batch_cancelled"), (expired, "batch_expired")):
        row = stage.row(batch["id"])
        assert (row["fed"], row["completed"], row["failed"], bitmap.count(row["ended"])) == (10, 0, 0, 10)
        results = [probe.results[line_task_id(batch, number)] for number in range(10)]
        assert [[found["error_code"] for found in result] for result in results] == [[code]] * 10
    assert set(ids) <= set(probe.cancels)
    assert (row["queue_number"], row["ending"]) == (QUEUE_NUMBER, "expired")
    third = await stage.create(1)
    assert third["stamp_s"] == cancelled["stamp_s"] + 2  # the table has the seconds in use
    await stage.feed(third, 0, 1)
    await eventually_async(lambda: probe.work[line_task_id(third, 0)], within_s=WITHIN_S)
    assert stage.row(one)["fed"] == 10
    assert not any(probe.work[line_task_id(cancelled, number)] for number in range(10, 20))


async def test_batches_go_on_when_schedulers_come_and_go(stage: Stage) -> None:
    homes = range(stage.probe.settings.kafka.partitions)
    batches = [await stage.create(20, home=home) for home in homes]
    for batch in batches:
        await stage.feed(batch, 0, 10)
    names = {pulse["scheduler"] for pulse in stage.probe.heartbeats}
    second = stage.another()

    def shared() -> bool:
        told = {pulse["scheduler"]: pulse["partitions"] for pulse in stage.probe.heartbeats}
        return len(told) > len(names) and all(told.values())

    await eventually_async(shared, within_s=WITHIN_S, what="partitions for both")
    for batch in batches:
        await _worked(stage, batch["id"], 10)
        await stage.feed(batch, 10, 20)
    await asyncio.to_thread(stage.role.kill)
    stage.role = second
    for batch in batches:
        await _worked(stage, batch["id"], 20)
        await stage.until(batch["id"], "finalizing")
    for batch in batches:
        row = stage.row(batch["id"])
        assert (row["completed"], row["failed"], bitmap.count(row["ended"])) == (18, 2, 20)
        results = [stage.probe.results[line_task_id(batch, number)] for number in range(20)]
        assert {len(found) for found in results} == {1}


async def _worked(stage: Stage, one: str, count: int) -> None:
    """Answer what is handed out until so many lines have ended."""

    async def until() -> None:
        while stage.row(one)["completed"] + stage.row(one)["failed"] < count:
            await stage.work()
            await asyncio.sleep(0.02)

    await asyncio.wait_for(until(), WITHIN_S)
