"""Batches and their lines in one transaction: counts, stops, and recovery from a crash between the two tables."""

from __future__ import annotations

import pytest

from schemas import bitmap, topics
from schemas.batches import Batch
from schemas.codec import CONTROL
from schemas.events import event
from schemas.headers import BATCH_ID, find
from schemas.records import Event
from streams import batch_transaction
from streams.intake.decode import Submission
from tests.support.memory_batch_log import (
    CREATED_MS,
    HOME,
    RETENTION_MS,
    WINDOW_MS,
    BatchLog,
    Cut,
    batch_id,
    created,
    line,
    part,
    validated,
)
from tests.support.records import failure, finished, outcome, task_id

USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
ONE = batch_id()
CANCEL = event("batch_cancel", at_ms=1, task_id=ONE, owner="key-1")


async def fed(log: BatchLog, total: int, count: int | None = None) -> Batch:
    """Create a batch of `total` lines and feed the first `count` of them."""
    await log.process((0, created(ONE)), (1, validated(ONE, total)))
    batch = log.batch(ONE)
    await log.process(*((n, line(batch, n)) for n in range(total if count is None else count)))
    return log.batch(ONE)


def ended(batch: Batch, number: int, *, good: bool = True) -> Event:
    result = outcome(usage=USAGE) if good else failure(retriable=False, status_code=400)
    return finished(line(batch, number).task_id, result=result)


async def test_a_batch_goes_its_way() -> None:
    log = BatchLog()
    batch = await fed(log, 3)
    assert (batch["state"], batch["total"], batch["fed"], batch["written_to"]) == ("in_progress", 3, 3, None)
    await log.process((2, ended(batch, 1)), (3, ended(batch, 0, good=False)))
    batch = log.batch(ONE)
    assert (batch["completed"], batch["failed"], batch["ended"]) == (1, 1, b"\x03")
    assert (batch["written_to"], batch["last_result"], batch["usage"]) == (0, 1, USAGE)
    await log.process((4, part(ONE, 0, 2, {0, 1}, errors=1)), (5, ended(batch, 2)))
    assert (log.batch(ONE)["state"], log.batch(ONE)["ending"]) == ("finalizing", "completed")
    await log.process((6, part(ONE, 2, 3, {2}, last=True)))
    batch = log.batch(ONE)
    assert (batch["state"], batch["completed_ms"]) == ("completed", CREATED_MS + 1_000)
    assert [one["end"] for one in batch["parts"]] == [2, 3]
    assert {find(record.headers, BATCH_ID) for record in log.log[f"headrace.{topics.results(1)}", HOME]} == {
        ONE.encode()
    }


async def test_lines_out_of_turn_are_dropped_and_known_ones_change_nothing() -> None:
    log = BatchLog()
    batch = await fed(log, 4, 2)
    other = line({**batch, "owner": "key-2"}, 2, owner="key-2")
    stranger = Submission(task_id(partition=HOME, level=1), line(batch, 2).task, 1, None)
    await log.process((2, line(batch, 3)), (3, line(batch, 1)), (4, other), (5, stranger), (6, line(batch, 0)))
    assert log.batch(ONE)["fed"] == 2
    assert log.reasons == {"line_gap": 1, "duplicate_id": 2, "not_owner_line": 2}
    alone = line(batch, 2)
    alone.task["batch_id"] = None  # the id alone makes no line
    await log.process((7, alone))
    assert log.reasons["unknown_batch"] == 1
    assert len(log.worked) == 2


async def test_two_batches_of_one_second_have_lines_of_their_own() -> None:
    log, other = BatchLog(), batch_id(1)
    await log.process((0, created(ONE)), (1, created(other)), (2, created(ONE)), (0, created(ONE)))
    await log.process((3, created(batch_id(2))), (4, created(batch_id(3), queue_number=8)))
    used_seconds = [log.batch(one)["stamp_s"] - CREATED_MS // 1000 for one in (ONE, other, batch_id(2), batch_id(3))]
    assert used_seconds == [0, 1, 2, 0]
    assert log.reasons == {"duplicate_batch_id": 1, "reread": 1}
    await log.restart()
    await log.process((5, created(batch_id(4))))
    assert log.batch(batch_id(4))["stamp_s"] - CREATED_MS // 1000 == 3


@pytest.mark.parametrize("stop", ["cancel", "expiry"])
async def test_a_stopped_batch_ends_its_lines_at_once(stop: str) -> None:
    log = BatchLog()
    batch = await fed(log, 5, 3)
    await log.process((2, ended(batch, 1)))
    due = event("batch_due", at_ms=1, task_id=ONE)
    await log.process((3, due))  # too early
    now_ms = batch["expires_ms"] if stop == "expiry" else CREATED_MS + 2_000
    transaction = await log.process((4, due if stop == "expiry" else CANCEL), (5, line(batch, 3)), now_ms=now_ms)
    batch, code = log.batch(ONE), "batch_expired" if stop == "expiry" else "batch_cancelled"
    assert batch["state"] == ("finalizing" if stop == "expiry" else "cancelling")
    assert (batch["completed"], batch["failed"], bitmap.count(batch["ended"]), batch["fed"]) == (1, 0, 3, 3)
    assert [(one["batch_line"], one["error_code"]) for one in log.results] == [(1, None), (0, code), (2, code)]
    stopped = [CONTROL.decode(record.value or b"")["id"] for record in transaction.records["headrace.controls", 0]]
    assert stopped == [line(batch, number).task_id for number in (0, 2)]
    assert (transaction.reasons, log.reasons["premature_batch_due"]) == ({"stale_line": 1}, 1)
    await log.process((6, ended(batch, 2)), (7, CANCEL), (8, part(ONE, 0, 3, {0, 1, 2}, errors=2, last=True)))
    assert log.batch(ONE)["state"] == batch["state"]  # lines 3 and 4 are not written yet
    assert log.reasons["premature_last_part"] == 1
    await log.process((9, part(ONE, 0, 3, {0, 1, 2, 3, 4}, errors=4, last=True)), now_ms=now_ms + 5)
    assert log.batch(ONE)["state"] == batch["ending"]
    assert len(log.results) == 3


async def test_a_batch_cancelled_before_validation_still_gets_its_line_count() -> None:
    log = BatchLog()
    await log.process((0, created(ONE)), (1, CANCEL), (2, validated(ONE, 2)))
    batch = log.batch(ONE)
    assert (batch["state"], batch["total"], batch["fed"]) == ("cancelling", 2, 0)
    await log.process((3, part(ONE, 0, 0, {0})), (4, part(ONE, 0, 0, {1}, errors=1, last=True)))
    batch = log.batch(ONE)
    assert (batch["state"], batch["written"], batch["written_to"]) == ("cancelled", b"\x03", None)


async def test_a_single_line_that_is_cancelled_counts_as_failed() -> None:
    log = BatchLog()
    batch = await fed(log, 2, 1)
    await log.process((2, event("cancel", at_ms=1, task_id=line(batch, 0).task_id, owner="key-1")))
    await log.process((3, event("cancel", at_ms=1, task_id=line(batch, 1).task_id, owner="key-1")), (4, line(batch, 1)))
    assert (log.batch(ONE)["failed"], log.batch(ONE)["state"]) == (2, "finalizing")


async def test_a_frozen_writers_part_is_dropped() -> None:
    log = BatchLog()
    batch = await fed(log, 3)
    await log.process(*((n + 2, ended(batch, n)) for n in range(3)))
    await log.process((5, part(ONE, 0, 2, {0, 1}, name="new")))
    before = log.batch(ONE)
    late = [
        part(ONE, 0, 1, {0}, name="old"),
        part(ONE, 0, 3, {0, 1, 2}, name="old", last=True),
        part(ONE, 2, 3, {1, 2}, name="old"),
        part(ONE, 2, 1, {2}, name="old"),
        part(ONE, 2, 3, {2, 3}, name="old"),
        part(ONE, 2, 2, set(), name="old"),
    ]
    await log.process(*((n, one) for n, one in enumerate(late, 6)))
    assert log.batch(ONE) == before
    assert log.reasons["invalid_part"] == len(late)


async def test_an_invalid_batch_fails_and_is_removed_at_last() -> None:
    log = BatchLog()
    fault = {"code": "invalid_json_line", "message": "x" * 5_000, "param": None, "line": 1}
    invalid = event("batch_invalid", at_ms=1, task_id=ONE)
    events: dict[str, object] = {"batch": None, "total": 0, "errors": [fault] * 200, "part": None, "begin": 0}
    invalid["change"] = {**events, "lines": b"", "last": False}  # type: ignore[typeddict-item]
    await log.process((0, created(ONE)), (1, invalid), (2, validated(ONE, 3)), (3, CANCEL))
    batch = log.batch(ONE)
    assert (batch["state"], len(batch["errors"]), len(batch["errors"][0]["message"])) == ("failed", 100, 1_000)
    await log.process((4, event("batch_due", at_ms=1, task_id=ONE)), now_ms=CREATED_MS + 1_000 + RETENTION_MS)
    assert log.batches.values == {}
    assert not log.index.second_in_use(HOME, 7, CREATED_MS // 1000)


CRASHES = range(26)
"""After how many records: before, between and after the outputs, the batch's row and the tasks' rows."""


@pytest.mark.parametrize("cut_after", CRASHES)
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_crash_anywhere_leaves_equal_rows_and_one_result_each(cut_after: int, stopped: bool) -> None:
    """One batch of inputs is cut off after some records and read again, tasks first, as `Replay` has it."""

    def inputs(batch: Batch) -> list[tuple[int, Submission | Event]]:
        tasks: list[tuple[int, Submission | Event]] = [(n, line(batch, n)) for n in range(4)]
        events: list[tuple[int, Submission | Event]] = [(2, ended(batch, 2)), (3, ended(batch, 0, good=False))]
        return [*tasks, *events, *([(4, CANCEL)] if stopped else [])]

    expected, log = BatchLog(), BatchLog()
    for one in (expected, log):
        await fed(one, 4, 1)
    await expected.process(*inputs(expected.batch(ONE)))
    log.cut_after = cut_after
    try:
        await log.process(*inputs(log.batch(ONE)))
    except Cut:
        await log.restart()
        work = set(log.worked)
        await log.process(*inputs(log.batch(ONE)), now_ms=CREATED_MS + 9_000)
        assert work <= set(log.worked)
    assert sorted(one["batch_line"] for one in log.results) == sorted(one["batch_line"] for one in expected.results)
    batch, wanted = log.batch(ONE), expected.batch(ONE)
    moments = ("cancelling_ms", "last_result", "finalizing_ms")
    assert {**batch, **dict.fromkeys(moments)} == {**wanted, **dict.fromkeys(moments)}
    assert batch["last_result"] == wanted["last_result"]
    for number in range(4):
        found, right = log.line(batch, number), expected.line(batch, number)
        assert found is not None
        assert right is not None
        assert (found["state"], found["error_code"]) == (right["state"], right["error_code"])
        result = [one for one in log.results if one["batch_line"] == number]
        if result:
            assert found["result_offset"] == log.results.index(result[0])


async def test_no_line_gets_work_again_whose_result_is_in_the_log() -> None:
    log = BatchLog()
    batch = await fed(log, 2, 0)
    inputs = [(0, line(batch, 0)), (1, line(batch, 1)), (2, ended(batch, 0)), (3, CANCEL)]
    log.cut_after = 2 + 1 + 2 + 1  # work, a control, results and the batch's row; no row of a task
    with pytest.raises(Cut):
        await log.process(*inputs)
    await log.restart()
    assert (log.batch(ONE)["state"], log.batch(ONE)["ended"], len(log.rows.values)) == ("cancelling", b"\x03", 0)
    before = len(log.worked)
    await log.process(*inputs)
    assert len(log.worked) == before
    assert len(log.results) == 2
    assert [(log.line(batch, n) or {}).get("state") for n in range(2)] == ["completed", "cancelled"]
    assert log.reasons["result_recovered"] == 2


async def test_a_stop_that_a_crash_has_cut_off_is_finished_when_it_is_read_again() -> None:
    log = BatchLog()
    batch = await fed(log, 3, 2)
    log.cut_after = 2 + 2 + 1  # controls, results and the batch's row
    with pytest.raises(Cut):
        await log.process((2, CANCEL))
    await log.restart()
    assert [(log.line(batch, n) or {}).get("state") for n in range(2)] == ["queued", "queued"]
    await log.process((2, CANCEL))
    assert [(log.line(batch, n) or {}).get("state") for n in range(2)] == ["cancelled", "cancelled"]
    assert (len(log.results), log.reasons["stale_batch_cancel"], log.batch(ONE)["failed"]) == (2, 1, 0)


async def test_many_lines_are_stopped_by_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_transaction, "MAX_CANCELLED_LINES", 3)
    log, other = BatchLog(), batch_id(1)
    batch = await fed(log, 8)
    await log.process((2, created(other)), (3, validated(other, 2)))
    await log.process(*((n + 8, line(log.batch(other), n)) for n in range(2)))
    now_ms = batch["expires_ms"]
    await log.process(
        *((n, event("batch_due", at_ms=1, task_id=one)) for n, one in ((4, ONE), (5, other))), now_ms=now_ms
    )
    assert [(log.batch(one)["state"], bitmap.count(log.batch(one)["ended"])) for one in (ONE, other)] == [
        ("finalizing", 3),
        ("finalizing", 0),
    ]
    await log.process((6, ended(batch, 7)), (7, part(ONE, 0, 3, {0, 1, 2}, errors=3, last=True)))
    turns = 0
    while (events := log.own_events()) and turns < 9:
        turns += 1
        await log.process(*((10 + turns, one) for one in events), now_ms=now_ms)
    assert turns == 2
    assert [bitmap.count(log.batch(one)["ended"]) for one in (ONE, other)] == [8, 2]
    assert (log.batch(ONE)["completed"], log.reasons["premature_last_part"], len(log.results)) == (1, 1, 10)


async def test_a_line_without_a_row_does_not_hold_up_a_stop() -> None:
    log = BatchLog()
    batch = await fed(log, 2)
    log.rows.values.pop((HOME, line(batch, 0).task_id))
    await log.process((2, CANCEL))
    assert (log.batch(ONE)["ended"], len(log.results), log.reasons) == (b"\x03", 1, {"line_without_row": 1})


async def test_batch_events_that_do_not_fit_are_counted() -> None:
    log = BatchLog()
    elsewhere = event("batch_cancel", at_ms=1, task_id=ONE)
    transaction = await log.process((0, elsewhere))
    transaction.batches.event(elsewhere, partition=HOME + 1, offset=1)
    transaction.batches.event(event("batch_due", at_ms=1, task_id="nonsense"), partition=HOME, offset=2)
    transaction.batches.event(event("batch_created", at_ms=1, task_id=ONE), partition=HOME, offset=3)
    assert transaction.reasons == {"unknown_batch": 1, "wrong_partition": 1, "no_batch_id": 1, "invalid_batch": 1}
    await log.process((4, created(ONE)), (5, event("batch_cancel", at_ms=1, task_id=ONE, owner="key-2")))
    assert (log.batch(ONE)["state"], log.reasons["not_owner_batch_cancel"]) == ("validating", 1)
    assert log.batch(ONE)["expires_ms"] == CREATED_MS + WINDOW_MS
