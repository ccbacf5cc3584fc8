"""The runner: an attempt is run once here, and a received record is safe once its outcome or claim is durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from core.clock import Deadline
from core.settings.models import Settings
from dispatcher.commit_loop import CommitLoop
from dispatcher.event_outbox import EventOutbox
from dispatcher.group_consumer import ReceivedRecord
from dispatcher.inference.concurrency import ONLINE, CallSlots
from dispatcher.inference.runner import Runner
from dispatcher.inference.work_item import MalformedWork, WorkItem, decode_work
from dispatcher.offset_tracker import OffsetTracker
from dispatcher.task_supervisor import TaskSupervisor
from schemas.codec import EVENT, WORK
from schemas.records import Event, Outcome, Work
from tests.support.clocks import MillisecondClock
from tests.support.dispatcher_doubles import MemoryProducer, work
from tests.support.records import outcome
from tests.support.waiting import eventually_async


class Worker:
    """Runs until the test sets the outcome."""

    def __init__(self) -> None:
        self.ends: dict[str, asyncio.Future[Outcome]] = {}

    async def run(self, item: WorkItem) -> Outcome:
        future = self.ends.setdefault(item.work["id"], asyncio.get_running_loop().create_future())
        return await future


class World:
    """A runner with doubles around it and one partition."""

    def __init__(self) -> None:
        self.producer = MemoryProducer()
        self.outbox = EventOutbox(self.producer)
        self.outbox.start(TaskSupervisor())
        self.slots = CallSlots(share=0, capacity=10)
        self.worker = Worker()
        self.cancelled: set[str] = set()
        self.over: set[str] = set()
        self.claims = OffsetTracker()
        self.offset = 0
        worker: Any = self.worker
        self.runner = Runner(
            Settings(),
            name="w1",
            slots=self.slots,
            worker=worker,
            outbox=self.outbox,
            is_cancelled=self.cancelled.__contains__,
            has_outcome=self.over.__contains__,
            clock=MillisecondClock(),
        )
        self.commit_loop = CommitLoop(Settings(), runner=self.runner, outbox=self.outbox)

    def take(self, item: Work) -> ReceivedRecord:
        self.claims.add(self.offset)
        record = SimpleNamespace(value=WORK.encode(item), offset=self.offset, headers=[("traceparent", b"00-1")])
        self.offset += 1
        return ReceivedRecord(record, self.claims)

    async def begin(self, item: Work) -> WorkItem:
        admitted = self.runner.admit(self.take(item))
        assert admitted is not None
        await self.slots.acquire(ONLINE)
        self.runner.start(admitted)
        await eventually_async(lambda: item["id"] in self.worker.ends)
        return admitted

    def events(self, kind: str) -> list[Event]:
        events = [EVENT.decode(record.value or b"") for _, _, record in self.producer.written]
        return [event for event in events if event["kind"] == kind]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.runner.return_items()
    world.producer.blocked = False
    await world.outbox.close(Deadline(60))


async def test_an_outcome_is_reported_and_then_safe(world: World) -> None:
    one = work()
    await world.begin(one)
    assert world.claims.to_commit() == 0
    world.producer.blocked = True
    world.worker.ends[one["id"]].set_result(outcome())
    await eventually_async(lambda: world.slots.used == (0, 0))
    await eventually_async(lambda: world.producer.writes)
    assert world.claims.to_commit() == 0, "the report is not durable yet"
    world.producer.blocked = False
    await eventually_async(lambda: world.claims.to_commit() == 1)
    (event,) = world.events("finished")
    assert (event["id"], event["attempt"], event["worker"]) == (one["id"], 1, "w1")
    topic, partition, record = world.producer.written[0]
    assert (topic, partition) == ("headrace.events.online", 0)
    assert ("traceparent", b"00-1") in record.headers


async def test_what_still_runs_is_claimed_once_at_the_tick(world: World) -> None:
    item = await world.begin(work())
    await world.commit_loop.run_once([], Deadline(60))
    assert world.claims.to_commit() == 1
    await world.commit_loop.run_once([], Deadline(60))
    assert len(world.events("claimed")) == 1
    item.delivered = lambda: True
    await world.commit_loop.run_once([], Deadline(60))
    await world.commit_loop.run_once([], Deadline(60))
    assert [event["streamed"] for event in world.events("claimed")] == [False, True]


async def test_a_tick_that_kafka_holds_up_makes_nothing_safe(world: World) -> None:
    await world.begin(work())
    world.producer.blocked = True
    await world.commit_loop.run_once([], Deadline(0.05))
    assert world.claims.to_commit() == 0


async def test_a_repeat_is_not_run_and_is_as_safe_as_the_first(world: World) -> None:
    one = work()
    await world.begin(one)
    assert world.runner.admit(world.take(one)) is None
    assert world.claims.to_commit() == 0
    await world.commit_loop.run_once([], Deadline(60))
    assert world.claims.to_commit() == 2
    assert world.runner.admit(world.take(one)) is None
    assert world.claims.to_commit() == 3, "a repeat of what is claimed is safe at once"
    world.worker.ends[one["id"]].set_result(outcome())
    await eventually_async(lambda: world.events("finished"))
    assert world.runner.admit(world.take(one)) is None
    assert world.claims.to_commit() == 4, "a repeat of what is over is safe at once"
    assert world.runner.admit(world.take({**one, "attempt": 2})) is not None


async def test_a_repeat_of_an_unreported_outcome_waits_for_the_report(world: World) -> None:
    one = work()
    await world.begin(one)
    world.producer.blocked = True
    world.worker.ends[one["id"]].set_result(outcome())
    await eventually_async(lambda: world.slots.used == (0, 0))
    assert world.runner.admit(world.take(one)) is None
    assert world.claims.to_commit() == 0
    world.producer.blocked = False
    await eventually_async(lambda: world.claims.to_commit() == 2)


async def test_a_cancel_stops_the_call_and_reports_nothing(world: World) -> None:
    one = work()
    item = await world.begin(one)
    world.runner.cancel(one["id"])
    await eventually_async(lambda: item.task is not None and item.task.done())
    assert world.slots.used == (0, 0)
    assert world.claims.to_commit() == 1
    assert world.producer.written == []
    assert world.runner.running == 0


async def test_a_cancel_reaches_an_item_that_waits_for_its_slot(world: World) -> None:
    one = work()
    item = world.runner.admit(world.take(one))
    assert item is not None
    world.runner.cancel(one["id"])
    assert world.claims.to_commit() == 1
    await world.slots.acquire(ONLINE)
    world.runner.start(item)
    assert world.slots.used == (0, 0)
    assert world.worker.ends == {}


async def test_work_that_was_cancelled_before_is_not_begun(world: World) -> None:
    one = work()
    world.cancelled.add(one["id"])
    assert world.runner.admit(world.take(one)) is None
    assert world.claims.to_commit() == 1


async def test_work_that_has_its_outcome_is_not_begun(world: World) -> None:
    """It was done before a crash, or by an attempt that was considered lost, possibly while it waited here."""
    done, doing = work(), work()
    world.over.add(done["id"])
    assert world.runner.admit(world.take(done)) is None
    item = world.runner.admit(world.take(doing))
    assert item is not None
    world.over.add(doing["id"])
    await world.slots.acquire(ONLINE)
    assert world.runner.start(item) is None
    assert world.slots.used == (0, 0)
    assert world.claims.to_commit() == 2
    assert world.producer.written == []


async def test_the_end_gives_back_what_has_not_ended(world: World) -> None:
    running, waiting, streaming = work(), work(), work()
    await world.begin(running)
    item = await world.begin(streaming)
    item.delivered, item.interrupted = lambda: True, lambda: outcome(error_code="worker_stopped", chunks=3)
    world.runner.admit(world.take(waiting))
    assert world.runner.return_items(waiting_only=True) == 1
    assert world.runner.return_items() == 1
    await eventually_async(lambda: world.claims.to_commit() == 3)
    assert {event["id"] for event in world.events("released")} == {waiting["id"], running["id"]}
    (cut,) = world.events("finished")
    assert cut["outcome"] is not None
    assert (cut["id"], cut["outcome"]["error_code"]) == (streaming["id"], "worker_stopped")
    await eventually_async(lambda: world.runner.running == 0)
    assert world.slots.used == (0, 0)


async def test_a_fault_of_ours_is_an_outcome(world: World, caplog: pytest.LogCaptureFixture) -> None:
    one = work()
    await world.begin(one)
    world.worker.ends[one["id"]].set_exception(RuntimeError("a bug"))
    await eventually_async(lambda: world.events("finished"))
    (event,) = world.events("finished")
    assert event["outcome"] is not None
    assert (event["outcome"]["status_code"], event["outcome"]["error_code"]) == (500, "internal_error")
    assert world.slots.used == (0, 0)
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, None),
        (b"", None),
        (b"garbage", None),
        (WORK.encode(work(id="TASK-1")), "id"),
        (WORK.encode(work(id="TASK-7-0-C-261118110640-0099-000001")), "id"),
        (WORK.encode(work(endpoint="/../secret")), "endpoint"),
        (WORK.encode(work(queue="a/b")), "queue"),
        (WORK.encode(work(level=3)), "level"),
    ],
)
def test_poison(value: bytes | None, field: str | None) -> None:
    with pytest.raises(MalformedWork) as caught:
        decode_work(Settings(), SimpleNamespace(value=value, headers=[]))
    assert caught.value.field == field
    assert caught.value.attempt == (1 if field else None)
