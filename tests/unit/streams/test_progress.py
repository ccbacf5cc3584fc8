"""Our own account of what was folded: nothing is committed over, nothing that was skipped stays unnoticed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.progress import Progress

HERE = ("tasks.online", 3)


def begun(at: int = 10) -> Progress:
    progress = Progress()
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
    assert progress.stuck(lambda _: 11, now_s=9, patience_s=5) == []
    assert progress.stuck(lambda _: 11, now_s=15, patience_s=5) == [HERE]
    progress.done(HERE, 10)
    assert progress.stuck(lambda _: None, now_s=16, patience_s=5) == []
    progress.done(HERE, 12)
    assert progress.stuck(lambda _: None, now_s=17, patience_s=5) == []
    assert progress.stuck(lambda _: None, now_s=23, patience_s=5) == [HERE]


def test_the_first_record_after_a_quiet_time_is_no_standstill() -> None:
    progress = begun()
    assert progress.stuck(lambda _: 10, now_s=9, patience_s=5) == []
    assert progress.stuck(lambda _: 11, now_s=99, patience_s=5) == []
    progress.done(HERE, 10)
    assert progress.stuck(lambda _: 12, now_s=106, patience_s=5) == []
    assert progress.stuck(lambda _: 12, now_s=112, patience_s=5) == [HERE]


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_commit_is_the_first_offset_not_folded(order: list[int]) -> None:
    progress = begun(0)
    for offset in order:
        progress.done(HERE, offset)
        seen = progress.committable(HERE)
        assert seen is not None
    missing = next(offset for offset in range(32) if offset not in order)
    assert progress.committable(HERE) == missing
