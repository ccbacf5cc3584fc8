from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import (
    EPOCH_S,
    MODES,
    SERIALS,
    IdError,
    Serials,
    TaskId,
    batch_line_id,
    canonical,
    from_record,
    parse,
    parse_batch,
    partition_of,
    replay_id,
)

LAST_S = EPOCH_S + 3_155_760_000 - 1  # 2099-12-31 23:59:59, the last second that two-digit years can express

task_ids = st.builds(
    TaskId,
    queue_number=st.integers(0, 2**32 - 1),
    level=st.integers(0, 1),
    mode=st.sampled_from(MODES),
    time_s=st.integers(EPOCH_S, LAST_S),
    partition=st.integers(0, 9999),
    serial=st.integers(0, SERIALS - 1),
)

renderings = pytest.mark.parametrize("render", [str, TaskId.uuid, TaskId.task, TaskId.request, TaskId.batch_request])
Render = Callable[[TaskId], str]


@renderings
@given(task_id=task_ids)
def test_every_rendering_is_reversible(render: Render, task_id: TaskId) -> None:
    assert parse(render(task_id)) == task_id


@renderings
@given(one=task_ids, other=task_ids)
def test_different_ids_are_written_differently(render: Render, one: TaskId, other: TaskId) -> None:
    assert (render(one) == render(other)) == (one == other)


@given(task_id=task_ids)
def test_the_task_form_has_one_spelling(task_id: TaskId) -> None:
    assert str(parse(str(task_id))) == str(task_id)


def test_the_forms_of_a_known_id() -> None:
    known = TaskId(7, 1, "C", 1_767_225_600, 42, 123)
    assert str(known) == "TASK-7-1-C-260101000000-0042-000123"
    assert known.uuid()[14] == "8"
    assert known.uuid()[19] in "89ab"
    assert len(known.task()) == len("task_") + 32
    assert known.request() == known.task().replace("task_", "req_")
    assert known.batch_request().startswith("batch_req_")


@pytest.mark.parametrize("moment", ["000101000000", "680229235959", "690101000000", "991231235959"])
def test_two_digit_years_belong_to_this_century(moment: str) -> None:
    text = f"TASK-0-0-B-{moment}-0000-000000"
    assert str(parse(text)) == text
    assert EPOCH_S <= parse(text).time_s <= LAST_S


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TASK-",
        "TASK-1-0-B-260101000000-0000-00000",
        "TASK-1-2-B-260101000000-0000-000000",
        "TASK-1-0-X-260101000000-0000-000000",
        "TASK-1-0-B-261301000000-0000-000000",
        "TASK-1-0-B-260230000000-0000-000000",
        "TASK-1-0-B-260101000000-0000-000000\n",
        "TASK-01-0-B-260101000000-0000-000000",
        "TASK-4294967296-0-B-260101000000-0000-000000",
        "TASK-١-0-B-260101000000-0000-000000",
        "task-1-0-B-260101000000-0000-000000",
        "task_" + "f" * 32,
        "task_" + "0" * 31,
        "batch_req_" + "F" * 32,
        "00000000-0000-4000-8000-000000000000",
        "ffffffff-ffff-8fff-bfff-ffffffffffff",
        "{00000000-0000-8000-8000-000000000000}",
    ],
)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(IdError):
        parse(text)


@given(text=st.one_of(st.text(), st.from_regex(r"(TASK-|task_|batch_req_)[0-9a-fA-F-]{0,40}", fullmatch=True)))
def test_any_text_is_an_id_or_an_id_error(text: str) -> None:
    try:
        found = parse(text)
    except IdError:
        return
    assert parse(str(found)) == found


@given(value=st.uuids())
def test_any_uuid_is_an_id_or_an_id_error(value: object) -> None:
    try:
        found = parse(str(value))
    except IdError:
        return
    assert found.uuid() == str(value)


@given(
    timestamp_ms=st.integers(EPOCH_S * 1000, LAST_S * 1000),
    partition=st.integers(0, 9999),
    offset=st.integers(0, 2**63 - 1),
)
def test_an_id_from_a_record_is_the_same_at_every_read(timestamp_ms: int, partition: int, offset: int) -> None:
    def read() -> TaskId:
        return from_record(queue_number=5, level=0, timestamp_ms=timestamp_ms, partition=partition, offset=offset)

    assert read() == read()
    assert parse(str(read())) == read()
    assert read().mode == "K"


@given(
    calls=st.lists(
        st.tuples(
            st.integers(0, 3),  # slot
            st.integers(0, 2),  # queue number
            st.sampled_from("BC"),
            st.integers(1_767_225_600, 1_767_225_603),  # a clock that jumps back and forth
            st.integers(1, 700),  # ids asked for
        ),
        max_size=12,
    )
)
def test_serials_never_repeat_within_and_across_slots(calls: list[tuple[int, int, str, int, int]]) -> None:
    processes = {slot: Serials(slot) for slot in range(4)}
    made = [
        processes[slot].next(queue_number=queue, level=0, mode=mode, now_s=now_s, partition=0)
        for slot, queue, mode, now_s, count in calls
        for _ in range(count)
    ]
    assert len(set(made)) == len(made)
    assert all(task_id.serial // Serials.PER_SLOT in processes for task_id in made)


def test_a_used_up_second_borrows_from_the_next() -> None:
    serials = Serials(999)
    made = [serials.next(queue_number=1, level=0, mode="B", now_s=1_767_225_600, partition=3) for _ in range(2_500)]
    assert len(set(made)) == 2_500
    assert [sum(one.time_s == 1_767_225_600 + n for one in made) for n in range(3)] == [1000, 1000, 500]
    assert all(999_000 <= one.serial < SERIALS for one in made)


def test_a_process_number_beyond_the_slots_wraps() -> None:
    assert Serials(1_003).slot == 3


batch_ids = task_ids.map(lambda task_id: task_id._replace(level=1, mode="P"))


@given(batch=batch_ids)
def test_a_batch_id_is_reversible_and_no_task_id(batch: TaskId) -> None:
    assert parse_batch(batch.batch()) == batch
    with pytest.raises(IdError):
        parse(batch.batch())


@given(task_id=task_ids)
def test_only_the_identity_of_a_batch_is_a_batch_id(task_id: TaskId) -> None:
    for text in (str(task_id), task_id.batch_request(), task_id.task(), task_id.uuid()):
        with pytest.raises(IdError):
            parse_batch(text)
    if (task_id.level, task_id.mode) != (1, "P"):
        with pytest.raises(IdError):
            parse_batch(task_id.batch())


@given(batch=batch_ids, lines=st.sets(st.integers(0, SERIALS - 1), max_size=20))
def test_lines_of_a_batch_have_ids_of_their_own_at_its_home(batch: TaskId, lines: set[int]) -> None:
    made = {str(batch_line_id(batch, line, queue_number=3, stamp_s=batch.time_s)) for line in lines}
    assert len(made) == len(lines)
    assert {parse(one).partition for one in made} <= {batch.partition}


positions = st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 3_000_000))


@given(one=positions, other=positions, shift=st.integers(1, 999), width=st.integers(0, 5))
def test_replays_give_every_position_an_id_of_its_own(
    one: tuple[int, int, int], other: tuple[int, int, int], shift: int, width: int
) -> None:
    def repeated(position: tuple[int, int, int], start_s: int) -> TaskId:
        level, partition, offset = position
        home, wide = (partition % width, 6) if width else (partition, 1)
        return replay_id(
            queue_number=1, level=level, home=home, wide=wide, start_s=start_s, partition=partition, offset=offset
        )

    start_s = 1_795_000_000
    assert (repeated(one, start_s) == repeated(other, start_s)) == (one == other)
    assert repeated(one, start_s) != repeated(other, start_s + shift)
    assert parse(str(repeated(one, start_s))) == repeated(one, start_s)


@given(batch=batch_ids)
def test_tasks_and_batches_tell_their_home_and_their_key(batch: TaskId) -> None:
    as_batch = batch._replace(level=1, mode="P")
    assert partition_of(as_batch.batch()) == partition_of(batch.task()) == batch.partition
    assert canonical(as_batch.batch()) == as_batch.batch()
    assert canonical(batch.task()) == canonical(batch.batch_request()) == str(batch)
    for wrong in ("batch_x", "task_x", as_batch.batch() + "0"):
        with pytest.raises(IdError):
            partition_of(wrong)
        with pytest.raises(IdError):
            canonical(wrong)
