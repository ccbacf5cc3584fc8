"""The count of processed offsets: no unprocessed offset is committed, and skipped records are detected."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.input_offsets import InputOffsets

HERE = ("tasks.online", 3)


def begun(at: int = 10) -> InputOffsets:
    progress = InputOffsets()
    progress.reset({HERE: at})
    return progress


def test_only_what_is_complete_may_be_committed() -> None:
    progress = begun()
    for offset in (10, 11, 14):
        progress.done(HERE, offset)
    assert progress.committable(HERE) == 12
    progress.done(HERE, 13)
    progress.done(HERE, 12)
    assert progress.committable(HERE) == 15


def test_partitions_that_are_gone_are_not_committed() -> None:
    progress = begun()
    progress.reset({})
    progress.done(HERE, 10)
    assert progress.committable(HERE) is None


def test_a_gap_and_a_standstill_are_noticed() -> None:
    progress = begun()
    assert progress.stalled(lambda _: 11, now_s=9, timeout_s=5) == []
    assert progress.stalled(lambda _: 11, now_s=15, timeout_s=5) == [HERE]
    progress.done(HERE, 10)
    assert progress.stalled(lambda _: None, now_s=16, timeout_s=5) == []
    progress.done(HERE, 12)
    assert progress.stalled(lambda _: None, now_s=17, timeout_s=5) == []
    assert progress.stalled(lambda _: None, now_s=23, timeout_s=5) == [HERE]


def test_the_first_record_after_a_quiet_time_is_no_standstill() -> None:
    progress = begun()
    assert progress.stalled(lambda _: 10, now_s=9, timeout_s=5) == []
    assert progress.stalled(lambda _: 11, now_s=99, timeout_s=5) == []
    progress.done(HERE, 10)
    assert progress.stalled(lambda _: 12, now_s=106, timeout_s=5) == []
    assert progress.stalled(lambda _: 12, now_s=112, timeout_s=5) == [HERE]


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_commit_is_the_first_unprocessed_offset(order: list[int]) -> None:
    progress = begun(0)
    for offset in order:
        progress.done(HERE, offset)
        seen = progress.committable(HERE)
        assert seen is not None
    missing = next(offset for offset in range(32) if offset not in order)
    assert progress.committable(HERE) == missing


def test_known_gaps_do_not_stall_a_partition() -> None:
    progress = begun()
    progress.done(HERE, 10)
    progress.done(HERE, 14, since=13)
    assert progress.committable(HERE) == 11
    progress.done(HERE, 12, since=11)
    assert progress.committable(HERE) == 15
    progress.done(HERE, 20, since=12)
    assert progress.committable(HERE) == 21


def test_what_is_behind_a_gap_joins_once_it_is_passed() -> None:
    progress = begun()
    progress.done(HERE, 13, since=12)
    progress.skip(HERE, 11)
    assert progress.committable(HERE) == 11
    progress.skip(HERE, 13)
    assert progress.committable(HERE) == 14
    progress.skip(HERE, 12)
    assert progress.committable(HERE) == 14
    assert progress.stalled(lambda _: 14, now_s=99, timeout_s=5) == []


def test_an_end_before_what_was_reached_is_a_standstill() -> None:
    progress = begun()
    assert progress.stalled(lambda _: 3, now_s=9, timeout_s=5) == []
    assert progress.stalled(lambda _: 3, now_s=15, timeout_s=5) == [HERE]
