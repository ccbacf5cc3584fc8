"""Progress of streams: relative to the request's limit, reported when it has grown, and never for anything else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from core.clock import Deadline
from core.settings.models import Settings
from dispatcher.event_outbox import EventOutbox
from dispatcher.inference.progress import ProgressReporter, token_limit
from dispatcher.inference.work_item import Phase, WorkItem
from dispatcher.task_supervisor import TaskSupervisor
from schemas.codec import EVENT
from tests.support.clocks import MillisecondClock
from tests.support.dispatcher_doubles import MemoryProducer, work


def body(**members: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"content": '"max_tokens": 3'}], **members})


class World:
    """A reporter with a producer in memory."""

    def __init__(self) -> None:
        self.producer = MemoryProducer()
        self.outbox = EventOutbox(self.producer)
        self.progress = ProgressReporter(Settings(), name="w1", outbox=self.outbox, clock=MillisecondClock())
        self.outbox.start(TaskSupervisor())
        self.deltas = 0

    def stream(self, **changes: Any) -> WorkItem:
        item = WorkItem(work=work(**{"mode": "streaming", "data": body(max_tokens=200), **changes}), home=0)
        item.claimed = True
        item.deltas = lambda: self.deltas
        self.progress.follow(item)
        return item

    async def told(self) -> list[int]:
        """Report, and return the records so far."""
        self.progress.report()
        await self.outbox.drained(Deadline(60))
        events = [EVENT.decode(record.value or b"") for _, _, record in self.producer.written]
        assert {(event["kind"], event["worker"], event["attempt"]) for event in events} <= {("progress", "w1", 1)}
        return [event["progress"] for event in events]


async def test_progress_is_reported_when_it_has_grown() -> None:
    world = World()
    world.stream()
    assert await world.told() == []
    world.deltas = 50
    assert await world.told() == [25]
    assert await world.told() == [25]
    world.deltas = 51  # less than one percent more
    assert await world.told() == [25]
    world.deltas = 400
    assert await world.told() == [25, 99]
    world.deltas = 500
    assert await world.told() == [25, 99]


async def test_nothing_is_reported_before_the_claim_and_after_the_end() -> None:
    world = World()
    item = world.stream()
    item.claimed, world.deltas = False, 50
    assert await world.told() == []
    item.claimed = True
    assert await world.told() == [25]
    world.deltas, item.phase = 100, Phase.ENDED
    assert await world.told() == [25]
    world.progress.forget(item)
    world.progress.forget(item)
    assert world.progress._limits == world.progress._reported == {}


async def test_while_kafka_is_away_progress_does_not_pile_up() -> None:
    world = World()
    world.stream()
    world.outbox._set_failing(True)
    world.deltas = 50
    assert await world.told() == []
    world.deltas = 100
    world.outbox._set_failing(False)
    assert await world.told() == [50]


async def test_each_report_is_an_event_of_its_own() -> None:
    world = World()
    world.stream()
    for world.deltas in (50, 100):
        await world.told()
    assert len({dict(record.headers)["ce_id"] for _, _, record in world.producer.written}) == 2


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 50, "max_tokens": 100}, 50),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "n": None}, 100),
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "100"}, None),
    ],
)
def test_the_limit_is_the_requests_own(members: dict[str, Any], limit: int | None) -> None:
    assert token_limit(work(data=body(**members))) == limit


@pytest.mark.parametrize("data", [None, b"", b"[1]", b"{"])
def test_a_body_that_names_no_limit(data: bytes | None) -> None:
    assert token_limit(work(data=data)) is None


def test_an_upload_has_no_limit() -> None:
    assert token_limit(work(data=b"--x", content_type="multipart/form-data; boundary=x")) is None
