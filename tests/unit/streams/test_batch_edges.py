"""What surrounds the batch machine: proposals that are refused, the clock of a batch, and what waits after a crash."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from schemas.codec import BATCH, EVENT
from schemas.events import change, event
from schemas.records import Event
from streams.faust.app import EmptyTable
from streams.intake.decode import InvalidRecord, read_event
from streams.recovery.buffer import RecoveryBuffer
from streams.recovery.scan import sweep, sweep_batches
from streams.state_index import HORIZON_MS, Due
from streams.state_machine.batch_rows import MAX_PROPOSAL_BYTES
from streams.timers import Timers
from tests.support.memory_batch_log import (
    CREATED_MS,
    HOME,
    QUEUE_NUMBER,
    RETENTION_MS,
    WINDOW_MS,
    BatchLog,
    MemoryRows,
    batch_id,
    created,
    proposed,
)
from tests.support.scheduler_app import scheduler_app
from tests.support.waiting import eventually_async

ONE = batch_id()


class Message:
    """A record of events.offline as Faust hands it out."""

    key, offset, headers = b"", 1, None

    def __init__(self, what: Event, *, partition: int = HOME) -> None:
        self.value = EVENT.encode(what)
        self.partition = partition


def test_a_sound_proposal_is_read() -> None:
    found = read_event(Message(created(ONE)), max_bytes=1 << 20)
    assert not isinstance(found, InvalidRecord)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"queue": "no queue"}, "queue"),
        ({"queue_number": 1 << 32}, "queue_number"),
        ({"endpoint": "v1"}, "endpoint"),
        ({"created_ms": 0}, "expires_ms"),
        ({"expires_ms": CREATED_MS}, "expires_ms"),
        ({"expires_ms": 1 << 50}, "expires_ms"),
        ({"owner": "o" * 257}, "owner"),
        ({"callback_url": "ftp://somewhere"}, "callback_url"),
        ({"metadata": {"k": "v" * MAX_PROPOSAL_BYTES}}, "change"),
        ({"id": batch_id(1)}, "id"),
        ({"id": "batch_1"}, "change"),
    ],
)
def test_a_batch_that_could_not_be_run_is_poison(changes: dict[str, Any], field: str) -> None:
    proposal = change(batch=BATCH.encode({**proposed(ONE), **changes}))  # type: ignore[typeddict-item]
    found = read_event(Message(event("batch_created", at_ms=1, task_id=ONE, change=proposal)), max_bytes=1 << 20)
    assert isinstance(found, InvalidRecord)
    assert found.field == field


@pytest.mark.parametrize("proposal", [None, b"", b"\0\0\0\0\x10nonsense"])
def test_a_proposal_without_a_batch_is_poison(proposal: bytes | None) -> None:
    what = event("batch_created", at_ms=1, task_id=ONE, change=None if proposal is None else change(batch=proposal))
    assert isinstance(read_event(Message(what), max_bytes=1 << 20), InvalidRecord)
    assert isinstance(read_event(Message(created(ONE), partition=HOME + 1), max_bytes=1 << 20), InvalidRecord)


def test_a_stop_waits_until_all_tasks_are_read_again() -> None:
    replay = RecoveryBuffer()
    replay.begin({HOME: 10}, ())
    kinds = ("batch_cancel", "batch_due", "batch_part", "batch_created", "batch_validated")
    waiting = [kind for kind in kinds if replay.must_wait(HOME, event(kind, at_ms=1, task_id=ONE))]  # type: ignore[arg-type]
    assert waiting == ["batch_cancel", "batch_due"]


async def test_the_clock_of_a_batch_rings_at_its_window_and_at_its_retention() -> None:
    log = BatchLog()
    near = CREATED_MS + WINDOW_MS - HORIZON_MS
    await log.process((0, created(ONE)), now_ms=near)
    assert log.index.due(now_ms=near + HORIZON_MS) == [Due(CREATED_MS + WINDOW_MS, "batch_due", HOME, ONE)]
    await log.process((1, event("batch_invalid", at_ms=1, task_id=ONE)), now_ms=near)
    assert log.index.next_due_ms() is None  # far away: a later sweep brings it in
    rows: Any = log.batches
    over_ms = near + RETENTION_MS
    for rebuild in (False, True):
        assert await sweep_batches(rows, log.index, [HOME], now_ms=over_ms, rebuild=rebuild) == 1
        assert log.index.due(now_ms=over_ms) == [Due(over_ms, "batch_due", HOME, ONE)]
    assert log.index.second_in_use(HOME, QUEUE_NUMBER, CREATED_MS // 1000)
    log.index.clear()
    assert not log.index.second_in_use(HOME, QUEUE_NUMBER, CREATED_MS // 1000)


async def test_rows_that_cannot_be_read_are_skipped_at_a_start_and_by_each_sweep() -> None:
    log = BatchLog()
    await log.process((0, created(ONE)), now_ms=CREATED_MS)
    rows: Any = log.batches
    rows.put(HOME, [(b"j", b"v"), (b"k", b""), (b"l", b"\xff" * 40)], offset=1)
    for rebuild in (True, False):
        assert await sweep_batches(rows, log.index, [HOME], now_ms=CREATED_MS, rebuild=rebuild) == 4
    assert log.index.second_in_use(HOME, QUEUE_NUMBER, CREATED_MS // 1000)
    tasks: Any = type(rows)()
    tasks.put(HOME, [(b"j", b"v"), (b"k", b""), (b"l", b"\xff" * 40)], offset=1)
    for rebuild in (True, False):
        assert await sweep(tasks, log.index, [HOME], now_ms=CREATED_MS, rebuild=rebuild) == 3


async def test_timers_write_what_is_due_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.timers.TICK_S", 0)
    written: list[Event] = []

    class Parts:
        async def send_all(self, records: list[Any]) -> None:
            written.extend(EVENT.decode(record.value or b"") for _, _, record in records)

    log = BatchLog()
    await log.process((0, created(ONE, created_ms=CREATED_MS - 2, expires_ms=CREATED_MS - 1)), now_ms=CREATED_MS)
    log.index._push(Due(1, "batch_due", HOME, batch_id(9)), CREATED_MS)  # removed since
    parts: Any = Parts()
    no_tasks, batches = cast("Any", MemoryRows()), cast("Any", log.batches)
    timers = Timers(
        log.settings,
        1,
        producer=parts,
        lookup=parts,
        index=log.index,
        rows=no_tasks,
        batches=batches,
        partitions={HOME},
    )
    ticking = asyncio.create_task(timers.run())
    try:
        await eventually_async(lambda: written)
    finally:
        ticking.cancel()
    assert [(one["kind"], one["id"]) for one in written] == [("batch_due", ONE)]


async def test_only_the_offline_level_has_batches(tmp_path: Any) -> None:
    log = BatchLog()

    online, offline = (scheduler_app(log.settings, level, folder=tmp_path) for level in (0, 1))
    assert isinstance(online.batches, EmptyTable)
    assert (online.batches.get(0, b"x"), list(online.batches.scan(0))) == (None, [])
    names = {table.changelog_topic.get_topic_name() for table in offline.app.tables.values()}
    assert names == {"headrace.status.offline", "headrace.batches"}
    offline.batches.put(2, [(b"a", b"1")], offset=0)
    offline.rows.put(2, [(b"b", b"2")], offset=0)
    assert list(offline.batches.scan(2)) == [(b"a", b"1")]
