"""What waits is counted once while rows change under the walk, and a full queue refuses what a caller brings."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from core.errors import RateLimited, Unavailable
from core.kafka.producer import Record
from core.settings.models import Settings
from ingress.read_model.queue_scan import ROWS_PER_STEP
from ingress.read_model.task_view import TaskView
from ingress.submission import admission
from ingress.submission.admission import QueueAdmission
from schemas.idempotency import key_id
from schemas.ids import TaskId
from schemas.partitioning import queue_number
from schemas.records import Queue
from streams.state_machine.rows import TaskRules, new_status
from tests.support.memory_pull import QUEUE, Cluster
from tests.support.read_model import TP, open_view, record_of, removed
from tests.support.records import queue, task
from tests.support.waiting import eventually_async


class Place:
    """A keeper over the rows of a scheduler in memory."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.cluster = Cluster(Settings.model_validate({"data_dir": folder, **sections}))
        _, self.view = self.cluster.ingress()
        self.queue: Queue | None = queue(QUEUE, max_waiting=3)
        self.refused: list[int] = []
        self.now_s = 0.0
        self.keeper: QueueAdmission

    def follow(self) -> None:
        """Begin."""
        view: Any = self.view
        self.keeper = QueueAdmission(
            self.cluster.settings,
            view=view,
            queue=lambda _: self.queue,
            on_refused=self.refused.append,
            clock=lambda: self.now_s,
        )
        if self.queue is not None:
            self.keeper.queue_registered(self.queue)

    async def admit(self, **changes: Any) -> None:
        """Bring a task."""
        await self.keeper.admit(task(queue=QUEUE, **changes), owner="key-1")

    def move(self, task_id: str, state: str) -> None:
        """Let the read model find a new state."""
        self.cluster.write({**self.cluster.rows[task_id], "state": state})  # type: ignore[typeddict-item]
        self.view.catch_up()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("seed", range(5))
async def test_rows_that_change_while_they_are_walked_are_counted_once(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    ids = place.cluster.submit(*range(1, 2 * ROWS_PER_STEP))
    place.view.catch_up()
    place.follow()
    for _ in range(60):
        if chance.random() < 0.2:
            ids += place.cluster.submit(len(ids) + 1)
        place.move(chance.choice(ids), chance.choice(("queued", "processing", "completed", "cancelled")))
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await place.admit()
    [online, offline] = sorted(place.keeper.all())
    waiting = sum(row["state"] == "queued" for row in place.cluster.rows.values())
    assert (online.waiting, online.limit) == (waiting, 3)
    assert (offline.waiting, offline.level) == (0, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_the_real_store_tells_what_a_row_was_before(tmp_path: Path, seed: int) -> None:
    chance, states = random.Random(seed), dict[str, str]()
    ids = [str(TaskId(queue_number(QUEUE), 0, "C", 1_795_000_000, 0, number)) for number in range(40)]

    def some(view: TaskView) -> None:
        records = []
        for _ in range(chance.randint(1, 12)):
            one, state = chance.choice(ids), chance.choice(("queued", "queued", "processing", "completed", "removed"))
            states[one] = state
            row: Any = new_status(task(queue=QUEUE), task_id=one, offset=0, created_ms=1, rules=TaskRules())
            records.append(removed(one) if state == "removed" else record_of({**row, "state": state}))
        view.feed(TP, records)

    with open_view(tmp_path) as view:
        some(view)
        counting = QueueAdmission(Settings(), view=view, queue=lambda _: None)
        counting.queue_registered(queue(QUEUE, max_waiting=1))
        for _ in range(20):
            some(view)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await eventually_async(lambda: len(counting.all()) == 2)
        assert min(counting.all()).waiting == sum(state == "queued" for state in states.values())


async def test_a_full_queue_refuses_until_something_begins(place: Place) -> None:
    place.follow()
    ids = place.cluster.submit(1, 2, 3)
    place.view.catch_up()
    with pytest.raises(RateLimited) as refused:
        await place.admit()
    assert str(refused.value) == (
        "queue chat is full: 3 online tasks wait, and its limit is 3; nothing was accepted, try again in 60 s"
    )
    assert (refused.value.retry_after_s, place.refused) == (60, [0])
    await place.admit(level=1)
    place.now_s += 4
    place.move(ids[0], "processing")
    await place.admit()
    place.cluster.submit(4)
    place.view.catch_up()
    with pytest.raises(RateLimited) as refused:
        await place.admit()
    assert refused.value.retry_after_s == pytest.approx(4, rel=0.2), "one began in four seconds"


async def test_what_is_accepted_here_counts_before_its_row_is_there(place: Place) -> None:
    place.follow()
    place.view.paused = True
    [one] = place.cluster.submit(1)
    for number, key in enumerate((one.encode(), f"{one[:-1]}8".encode(), f"{one[:-1]}9".encode())):
        await place.admit()
        place.keeper.reserve(key)
        assert place.keeper.all()[0].waiting == number + 1
    place.view.catch_up()
    with pytest.raises(RateLimited, match="3 online tasks wait"):
        await place.admit()
    place.keeper.rollback(f"{one[:-1]}9".encode())
    await place.admit()


async def test_a_twin_of_a_known_task_is_let_in(place: Place) -> None:
    place.follow()
    [first, *_] = place.cluster.submit(1, 2, 3)
    known = {**place.cluster.rows[first], "id": key_id(QUEUE, "key-1", "once"), "state": "expired"}
    place.cluster.write(known)  # type: ignore[arg-type]  # a row
    place.view.catch_up()
    await place.admit(idempotency_key="once")
    with pytest.raises(RateLimited):
        await place.admit(idempotency_key="another")


async def test_a_limit_may_come_and_go(place: Place) -> None:
    place.queue = None
    place.follow()
    place.cluster.submit(1, 2, 3)
    place.view.catch_up()
    await place.admit()
    assert place.keeper.all() == []
    place.queue = queue(QUEUE, max_waiting=2)
    place.keeper.queue_registered(place.queue)
    with pytest.raises(RateLimited, match="its limit is 2"):
        await place.admit()
    place.queue = queue(QUEUE, max_waiting=0)
    place.keeper.queue_registered(place.queue)
    await place.admit()
    assert place.keeper.all() == []
    place.keeper.reserve(b"TASK-1-0-C-x")


async def test_a_stray_record_stops_nothing(place: Place) -> None:
    place.follow()
    [one, *_] = place.cluster.submit(1, 2)
    place.view.catch_up()
    for watcher in place.view.watchers:
        watcher([Record(f"{one}0".encode(), value) for value in (b"", b"\x00", b"\x00\x00\x00\x00\x0c\xff", None)])
        watcher([Record(None, b""), Record(b"-", b""), Record(b"TASK-", b"")])
    await place.admit()
    assert min(place.keeper.all()).waiting == 2


async def test_before_everything_is_counted_nobody_is_let_in_or_refused_for_good(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.view.caught_up = False
    place.follow()
    with monkeypatch.context() as hurry:
        hurry.setattr(admission, "COUNT_TIMEOUT_S", 0.05)
        with pytest.raises(Unavailable, match="still being counted"):
            await place.admit()
    place.view.caught_up = True
    await place.admit()
    place.keeper.close()
