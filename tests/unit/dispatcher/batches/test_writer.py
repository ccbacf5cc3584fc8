"""The writer against the scheduler's own verdict on its parts: every line once, whoever writes and however often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from core.settings import Settings
from dispatcher.batches import writer as writer_module
from dispatcher.batches.pieces import names_of, tidy
from dispatcher.batches.writer import Writer
from schemas import bits
from schemas.batches import Batch
from schemas.events import event
from tests.support.batch_doubles import HOME, Stage, input_file

TOTAL = 40


class Seconds:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, Settings())


async def begun(stage: Stage, *, fed: int = TOTAL) -> Batch:
    """Create a batch whose lines are tasks."""
    return await stage.create(input_file(TOTAL), state="in_progress", total=TOTAL, fed=fed)


def writer_of(stage: Stage, seconds: Seconds) -> Writer:
    return Writer(
        stage.settings, home=HOME, rows=stage.rows, lookup=stage.lookup, blobs=stage.blobs, producer=stage.producer,
        clock=lambda: stage.now_ms, monotonic=seconds,
    )  # fmt: skip


async def settle(stage: Stage, writer: Writer, seconds: Seconds) -> None:
    """Let time pass until the batch has ended."""
    for _ in range(60):
        await writer.step()
        stage.judge()
        seconds.now += 2
        if not stage.rows():
            return
    pytest.fail(f"the batch has not ended: {stage.row}")


async def ids(stage: Stage) -> tuple[list[str], list[str]]:
    """Return the custom_ids of output and errors."""
    output, errors = [[line["custom_id"] for line in await stage.content(errors=kind)] for kind in (False, True)]
    return output, errors


def names(lines: range) -> list[str]:
    return [f"c-{line}" for line in lines]


FAILED: dict[str, Any] = {"state": "failed", "status_code": 500, "error_code": "upstream_error", "error_message": "no"}


async def test_answers_are_written_in_parts_and_the_last_one_ends_the_batch(stage: Stage, seconds: Seconds) -> None:
    await begun(stage)
    writer = writer_of(stage, seconds)
    await writer.step()
    assert stage.producer.written == []
    stage.end(range(10))
    await writer.step()
    assert stage.events("batch_part") == []  # not old enough
    seconds.now += 1.1
    await writer.step()
    stage.judge()
    assert (await ids(stage))[0] == names(range(10))
    stage.end(range(10, 15), **FAILED)
    stage.end(range(15, TOTAL))
    await settle(stage, writer, seconds)
    assert stage.row is not None
    assert stage.row["state"] == "completed"
    output, errors = await ids(stage)
    assert output == [*names(range(10)), *names(range(15, TOTAL))]
    assert errors == names(range(10, 15))
    assert stage.notes == []
    assert stage.stored() == names_of(stage.row)


async def test_a_batch_that_grows_old_has_fewer_parts(stage: Stage, seconds: Seconds) -> None:
    await begun(stage)
    writer = writer_of(stage, seconds)
    stage.now_ms += 1_000_000
    stage.end(range(10))
    for _ in range(10):
        await writer.step()
        seconds.now += 1
    assert stage.events("batch_part") == []
    seconds.now += 0.1
    await writer.step()
    assert len(stage.events("batch_part")) == 1


@pytest.mark.parametrize("fed", [0, 25, TOTAL])
async def test_what_never_ran_is_in_the_error_file_of_a_cancelled_batch(
    stage: Stage, seconds: Seconds, fed: int
) -> None:
    row = await begun(stage, fed=fed)
    stage.end(range(fed // 2))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    stage.end(
        range(fed // 2, fed), state="cancelled", error_code="batch_cancelled", error_message="no", status_code=499
    )
    await settle(stage, writer_of(stage, seconds), seconds)
    assert stage.row is not None
    assert stage.row["state"] == "cancelled"
    assert await ids(stage) == (names(range(fed // 2)), names(range(fed // 2, TOTAL)))
    assert {line["error"]["code"] for line in await stage.content(errors=True)} == {"batch_cancelled"}
    assert stage.notes == []


async def test_what_never_ran_has_no_names_when_the_input_file_is_gone(stage: Stage, seconds: Seconds) -> None:
    row = await begun(stage, fed=5)
    stage.end(range(5))
    await stage.blobs.remove(row["input"]["uri"])
    stage.now_ms = row["expires_ms"]
    stage.apply(event("batch_due", at_ms=1, task_id=row["id"]))
    await settle(stage, writer_of(stage, seconds), seconds)
    assert stage.row is not None
    assert stage.row["state"] == "expired"
    errors = await stage.content(errors=True)
    assert [line["custom_id"] for line in errors] == [None] * (TOTAL - 5)
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    assert len({line["id"] for line in errors}) == TOTAL - 5


async def test_a_batch_stopped_before_it_was_counted_waits_for_its_count(stage: Stage, seconds: Seconds) -> None:
    row = await stage.create(input_file(TOTAL))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    writer = writer_of(stage, seconds)
    await writer.step()
    assert stage.producer.written == []
    assert stage.row is not None
    writer.uncountable.add(row["id"])
    await settle(stage, writer, seconds)
    assert (stage.row["state"], stage.row["parts"]) == ("cancelled", [])


async def test_the_memory_is_bounded_by_smaller_parts(
    stage: Stage, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 2_000)
    monkeypatch.setattr(writer_module, "MIN_HELD_BYTES", 2_000)
    await begun(stage, fed=20)
    stage.end(range(20))
    assert stage.row is not None
    stage.apply(event("batch_cancel", at_ms=1, task_id=stage.row["id"], owner="key-1"))
    await settle(stage, writer_of(stage, seconds), seconds)
    assert len(stage.row["parts"]) > 5
    assert await ids(stage) == (names(range(20)), names(range(20, TOTAL)))


async def test_of_two_writers_every_line_is_written_once(stage: Stage, seconds: Seconds) -> None:
    """One is frozen with a part half done, the other goes on from the row; the first one wakes up."""
    await begun(stage)
    frozen, other = writer_of(stage, seconds), writer_of(stage, seconds)
    stage.end(range(20))
    await frozen.step()
    asleep = stage.row
    stage.end(range(20, 30))
    for _ in range(3):
        seconds.now += 2
        await other.step()
        stage.judge()
    assert stage.row is not None
    written = stage.row["written_to"]
    newest, stage.row = stage.row, asleep
    await frozen.step()  # it knows the old row only
    stage.row = newest
    stage.judge()
    assert stage.notes == ["misfit_part"]
    assert stage.row["written_to"] == written
    stage.end(range(30, TOTAL))
    for _ in range(20):
        seconds.now += 2
        await frozen.step()
        await other.step()
        stage.judge()
    assert stage.row["state"] == "completed"
    assert sorted((await ids(stage))[0]) == sorted(names(range(TOTAL)))
    assert stage.stored() > names_of(stage.row)
    await tidy(stage.blobs, stage.row["id"], names_of(stage.row))
    assert stage.stored() == names_of(stage.row)


async def test_a_part_that_nobody_answers_is_written_anew(stage: Stage, seconds: Seconds) -> None:
    await begun(stage)
    stage.end(range(TOTAL))
    writer = writer_of(stage, seconds)
    await writer.step()
    assert len(stage.producer.written) == 1
    seconds.now += 29
    await writer.step()
    assert len(stage.producer.written) == 1
    seconds.now += 2
    await writer.step()
    assert len(stage.producer.written) == 2
    stage.judge()
    assert stage.row is not None
    assert (stage.row["state"], stage.notes) == ("completed", ["late_batch_part"])
    assert (await ids(stage))[0] == names(range(TOTAL))


async def test_kafka_that_is_away_loses_nothing(stage: Stage, seconds: Seconds) -> None:
    await begun(stage)
    stage.end(range(TOTAL))
    writer = writer_of(stage, seconds)
    stage.producer.blocked = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await writer.step()
    stage.producer.blocked = False
    await settle(stage, writer, seconds)
    assert (await ids(stage))[0] == names(range(TOTAL))


async def test_stored_answers_are_put_into_their_lines(stage: Stage, seconds: Seconds) -> None:
    await begun(stage, fed=4)
    small = await stage.blobs.put(b'{"a":\n1}', name="results/1", media_type="application/json")
    broken = await stage.blobs.put(b'{"a":', name="results/2", media_type="application/json")
    large = await stage.blobs.put(b'{"a":"' + b"x" * 5_000_000 + b'"\n}', name="results/3", media_type="text/plain")
    for line, blob in enumerate((small, broken, large, {**small, "uri": "results/none"})):
        stage.end([line], body=None, body_ref=blob)
    assert stage.row is not None
    stage.apply(event("batch_cancel", at_ms=1, task_id=stage.row["id"], owner="key-1"))
    await settle(stage, writer_of(stage, seconds), seconds)
    first, second, third = [line["response"]["body"] for line in await stage.content(errors=False)]
    assert (first, second, third) == ({"a": 1}, '{"a":', {"a": "x" * 5_000_000})
    lost = (await stage.content(errors=True))[0]
    assert (lost["custom_id"], lost["error"]["code"]) == ("c-3", "body_missing")
    assert stage.row["state"] == "cancelled"


async def test_results_that_are_not_kept_any_more_become_errors(stage: Stage, seconds: Seconds) -> None:
    await begun(stage)
    stage.end(range(TOTAL))
    stage.lookup.first = 50  # the log has lost what was before
    await settle(stage, writer_of(stage, seconds), seconds)
    output, errors = await ids(stage)
    assert output == names(range(25, TOTAL))
    assert len(errors) == 25
    assert {line["error"]["code"] for line in await stage.content(errors=True)} == {"result_lost"}


async def test_lines_that_are_still_being_stopped_are_not_lost(stage: Stage, seconds: Seconds) -> None:
    """The scheduler may take longer to stop a large batch than a result is looked for."""
    row = await begun(stage)
    stage.end(range(10))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    writer = writer_of(stage, seconds)
    for end in (25, TOTAL):
        for _ in range(5):
            await writer.step()
            stage.judge()
            seconds.now += writer_module.LOST_S
        assert stage.row is not None
        lines = range(bits.count(stage.row["ended"]), end)
        stage.end(lines, state="cancelled", error_code="batch_cancelled", error_message="no", status_code=499)
    await settle(stage, writer, seconds)
    assert await ids(stage) == (names(range(10)), names(range(10, TOTAL)))
    assert {line["error"]["code"] for line in await stage.content(errors=True)} == {"batch_cancelled"}
    assert stage.notes == []


async def test_two_writers_of_lines_that_never_ran_do_not_wait_for_each_other(stage: Stage, seconds: Seconds) -> None:
    """Such parts move no offset: what is written already shows in the bits alone."""
    row = await begun(stage, fed=0)
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    first, second = writer_of(stage, seconds), writer_of(stage, seconds)
    second._most_bytes = first._most_bytes = 1_000
    for _ in range(20):
        await first.step()
        await second.step()
        stage.judge()
    assert stage.row is not None
    assert stage.row["state"] == "cancelled"
    assert sorted((await ids(stage))[1]) == sorted(names(range(TOTAL)))
