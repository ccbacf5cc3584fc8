"""The output writer with the scheduler that accepts its parts: every line once, with any number of writers."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Unavailable
from core.settings.models import Settings
from dispatcher.batches import output_writer as writer_module
from dispatcher.batches.output_segments import delete_orphans, segment_names_of
from schemas import bitmap
from schemas.events import event
from tests.support.batch_doubles import Stage, input_file
from tests.support.batch_writer import FAILED, TOTAL, create_batch, custom_ids, ids_of, run_to_the_end, writer_of
from tests.support.clocks import SecondClock


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, Settings())


async def test_answers_are_written_in_parts_and_the_last_one_ends_the_batch(stage: Stage, clock: SecondClock) -> None:
    await create_batch(stage)
    writer = writer_of(stage, clock)
    await writer.step()
    assert stage.producer.written == []
    stage.end(range(10))
    await writer.step()
    assert stage.events("batch_part") == []  # not old enough
    clock.now_s += 1.1
    await writer.step()
    stage.judge()
    assert (await custom_ids(stage))[0] == ids_of(range(10))
    stage.end(range(10, 15), **FAILED)
    stage.end(range(15, TOTAL))
    await run_to_the_end(stage, writer, clock)
    assert stage.row is not None
    assert stage.row["state"] == "completed"
    output, errors = await custom_ids(stage)
    assert output == [*ids_of(range(10)), *ids_of(range(15, TOTAL))]
    assert errors == ids_of(range(10, 15))
    assert stage.reasons == []
    assert stage.stored() == segment_names_of(stage.row)


async def test_a_batch_that_grows_old_has_fewer_parts(stage: Stage, clock: SecondClock) -> None:
    await create_batch(stage)
    writer = writer_of(stage, clock)
    stage.now_ms += 1_000_000
    stage.end(range(10))
    for _ in range(10):
        await writer.step()
        clock.now_s += 1
    assert stage.events("batch_part") == []
    clock.now_s += 0.1
    await writer.step()
    assert len(stage.events("batch_part")) == 1


@pytest.mark.parametrize("fed", [0, 25, TOTAL])
async def test_what_never_ran_is_in_the_error_file_of_a_cancelled_batch(
    stage: Stage, clock: SecondClock, fed: int
) -> None:
    row = await create_batch(stage, fed=fed)
    stage.end(range(fed // 2))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    stage.end(
        range(fed // 2, fed), state="cancelled", error_code="batch_cancelled", error_message="no", status_code=499
    )
    await run_to_the_end(stage, writer_of(stage, clock), clock)
    assert stage.row is not None
    assert stage.row["state"] == "cancelled"
    assert await custom_ids(stage) == (ids_of(range(fed // 2)), ids_of(range(fed // 2, TOTAL)))
    assert {line["error"]["code"] for line in await stage.content(errors=True)} == {"batch_cancelled"}
    assert stage.reasons == []


async def test_what_never_ran_has_no_names_when_the_input_file_is_gone(stage: Stage, clock: SecondClock) -> None:
    row = await create_batch(stage, fed=5)
    stage.end(range(5))
    await stage.blobs.remove(row["input"]["uri"])
    stage.now_ms = row["expires_ms"]
    stage.apply(event("batch_due", at_ms=1, task_id=row["id"]))
    await run_to_the_end(stage, writer_of(stage, clock), clock)
    assert stage.row is not None
    assert stage.row["state"] == "expired"
    errors = await stage.content(errors=True)
    assert [line["custom_id"] for line in errors] == [None] * (TOTAL - 5)
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    assert len({line["id"] for line in errors}) == TOTAL - 5


async def test_a_batch_stopped_before_it_was_counted_waits_for_its_count(stage: Stage, clock: SecondClock) -> None:
    row = await stage.create(input_file(TOTAL))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    writer = writer_of(stage, clock)
    await writer.step()
    assert stage.producer.written == []
    assert stage.row is not None
    writer.uncountable.add(row["id"])
    await run_to_the_end(stage, writer, clock)
    assert (stage.row["state"], stage.row["parts"]) == ("cancelled", [])


async def test_the_memory_is_bounded_by_smaller_parts(
    stage: Stage, clock: SecondClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(writer_module, "MIN_BUFFERED_BYTES", 2_000)
    await create_batch(stage, fed=20)
    stage.end(range(20))
    assert stage.row is not None
    stage.apply(event("batch_cancel", at_ms=1, task_id=stage.row["id"], owner="key-1"))
    await run_to_the_end(stage, writer_of(stage, clock), clock)
    assert len(stage.row["parts"]) > 5
    assert await custom_ids(stage) == (ids_of(range(20)), ids_of(range(20, TOTAL)))


async def test_of_two_writers_every_line_is_written_once(stage: Stage, clock: SecondClock) -> None:
    """One writer is paused with a part in progress, the other continues from the row; then the first one resumes."""
    await create_batch(stage)
    frozen, other = writer_of(stage, clock), writer_of(stage, clock)
    stage.end(range(20))
    await frozen.step()
    asleep = stage.row
    stage.end(range(20, 30))
    for _ in range(3):
        clock.now_s += 2
        await other.step()
        stage.judge()
    assert stage.row is not None
    written = stage.row["written_to"]
    newest, stage.row = stage.row, asleep
    await frozen.step()  # it has only the old row
    stage.row = newest
    stage.judge()
    assert stage.reasons == ["invalid_part"]
    assert stage.row["written_to"] == written
    stage.end(range(30, TOTAL))
    for _ in range(20):
        clock.now_s += 2
        await frozen.step()
        await other.step()
        stage.judge()
    assert stage.row["state"] == "completed"
    assert sorted((await custom_ids(stage))[0]) == sorted(ids_of(range(TOTAL)))
    assert stage.stored() > segment_names_of(stage.row)
    await delete_orphans(stage.blobs, stage.row["id"], segment_names_of(stage.row))
    assert stage.stored() == segment_names_of(stage.row)


async def test_a_part_that_is_not_accepted_is_written_again(stage: Stage, clock: SecondClock) -> None:
    await create_batch(stage)
    stage.end(range(TOTAL))
    writer = writer_of(stage, clock)
    await writer.step()
    assert len(stage.producer.written) == 1
    clock.now_s += 29
    await writer.step()
    assert len(stage.producer.written) == 1
    clock.now_s += 2
    await writer.step()
    assert len(stage.producer.written) == 2
    stage.judge()
    assert stage.row is not None
    assert (stage.row["state"], stage.reasons) == ("completed", ["stale_batch_part"])
    assert (await custom_ids(stage))[0] == ids_of(range(TOTAL))


async def test_kafka_that_is_away_loses_nothing(stage: Stage, clock: SecondClock) -> None:
    await create_batch(stage)
    stage.end(range(TOTAL))
    writer = writer_of(stage, clock)
    stage.producer.blocked = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await writer.step()
    stage.producer.blocked = False
    await run_to_the_end(stage, writer, clock)
    assert (await custom_ids(stage))[0] == ids_of(range(TOTAL))


async def test_stored_answers_are_put_into_their_lines(stage: Stage, clock: SecondClock) -> None:
    await create_batch(stage, fed=4)
    small = await stage.blobs.put(b'{"a":\n1}', name="results/1", media_type="application/json")
    broken = await stage.blobs.put(b'{"a":', name="results/2", media_type="application/json")
    large = await stage.blobs.put(b'{"a":"' + b"x" * 5_000_000 + b'"\n}', name="results/3", media_type="text/plain")
    for line, blob in enumerate((small, broken, large, {**small, "uri": "results/none"})):
        stage.end([line], body=None, body_ref=blob)
    assert stage.row is not None
    stage.apply(event("batch_cancel", at_ms=1, task_id=stage.row["id"], owner="key-1"))
    await run_to_the_end(stage, writer_of(stage, clock), clock)
    first, second, third = [line["response"]["body"] for line in await stage.content(errors=False)]
    assert (first, second, third) == ({"a": 1}, '{"a":', {"a": "x" * 5_000_000})
    lost = (await stage.content(errors=True))[0]
    assert (lost["custom_id"], lost["error"]["code"]) == ("c-3", "body_missing")
    assert stage.row["state"] == "cancelled"


async def test_results_that_are_no_longer_retained_become_errors(stage: Stage, clock: SecondClock) -> None:
    await create_batch(stage)
    stage.end(range(TOTAL))
    stage.lookup.first = 50  # the log has lost earlier records
    await run_to_the_end(stage, writer_of(stage, clock), clock)
    output, errors = await custom_ids(stage)
    assert output == ids_of(range(25, TOTAL))
    assert len(errors) == 25
    assert {line["error"]["code"] for line in await stage.content(errors=True)} == {"result_lost"}


async def test_lines_that_are_still_being_stopped_are_not_lost(stage: Stage, clock: SecondClock) -> None:
    """The scheduler may take longer to stop a large batch than a missing result is searched for."""
    row = await create_batch(stage)
    stage.end(range(10))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    writer = writer_of(stage, clock)
    for end in (25, TOTAL):
        for _ in range(5):
            await writer.step()
            stage.judge()
            clock.now_s += writer_module.RESULT_TIMEOUT_S
        assert stage.row is not None
        lines = range(bitmap.count(stage.row["ended"]), end)
        stage.end(lines, state="cancelled", error_code="batch_cancelled", error_message="no", status_code=499)
    await run_to_the_end(stage, writer, clock)
    assert await custom_ids(stage) == (ids_of(range(10)), ids_of(range(10, TOTAL)))
    assert {line["error"]["code"] for line in await stage.content(errors=True)} == {"batch_cancelled"}
    assert stage.reasons == []


async def test_two_writers_of_lines_that_never_ran_do_not_wait_for_each_other(stage: Stage, clock: SecondClock) -> None:
    """Such parts advance no offset: what was written is in the bitmap alone."""
    row = await create_batch(stage, fed=0)
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    first, second = writer_of(stage, clock), writer_of(stage, clock)
    second._max_bytes = first._max_bytes = 1_000
    for _ in range(20):
        await first.step()
        await second.step()
        stage.judge()
    assert stage.row is not None
    assert stage.row["state"] == "cancelled"
    assert sorted((await custom_ids(stage))[1]) == sorted(ids_of(range(TOTAL)))
