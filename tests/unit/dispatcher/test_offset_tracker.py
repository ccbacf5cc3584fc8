"""The commit never passes a record whose claim or outcome is not durable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.offset_tracker import OffsetTracker


def received(*offsets: int) -> OffsetTracker:
    claims = OffsetTracker()
    for offset in offsets:
        claims.add(offset)
    return claims


def test_nothing_taken_is_nothing_to_commit() -> None:
    assert OffsetTracker().to_commit() is None


def test_offsets_without_a_record_are_committed_over() -> None:
    claims = OffsetTracker()
    claims.advance(7)
    assert claims.to_commit() is None
    claims.add(5)
    claims.advance(8)
    assert claims.to_commit() == 5
    claims.completed(5)
    assert claims.to_commit() == 8
    assert not claims.is_next(7)


def test_what_runs_keeps_the_commit_back_until_it_is_claimed() -> None:
    claims = received(10, 11, 12)
    claims.completed(11)
    assert claims.to_commit() == 10
    claims.claimed(10)
    assert claims.to_commit() == 12
    claims.completed(12)
    assert claims.to_commit() == 13


def test_an_outcome_on_its_way_needs_no_claim_but_is_not_safe() -> None:
    claims = received(5)
    claims.finished(5)
    assert claims.unclaimed() == []
    assert claims.to_commit() == 5
    claims.completed(5)
    assert claims.to_commit() == 6


def test_a_confirmed_commit_is_not_repeated() -> None:
    claims = received(1)
    claims.completed(1)
    claims.committed(2)
    assert claims.to_commit() is None
    claims.committed(1)
    assert claims.to_commit() is None


def test_offsets_may_have_gaps_but_never_go_back() -> None:
    claims = received(3, 7)
    claims.completed(3)
    assert claims.to_commit() == 7
    assert not claims.is_next(6)
    with pytest.raises(ValueError, match="offset 6"):
        claims.add(6)


@given(st.data())
def test_the_commit_is_always_below_everything_unsafe(data: st.DataObject) -> None:
    claims, added, safe, committed, following = OffsetTracker(), [], set(), -1, 0
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(st.sampled_from(["add", "finished", "claimed", "completed", "commit"]))
        if step == "add":
            following += data.draw(st.integers(0, 3))
            claims.add(following)
            added.append(following)
            following += 1
        elif step == "commit":
            point = claims.to_commit()
            unsafe = [offset for offset in added if offset not in safe]
            expected = min(unsafe) if unsafe else following
            if added and expected > committed:
                assert point == expected
                committed = expected
                claims.committed(expected)
            else:
                assert point is None
        elif added:
            offset = data.draw(st.sampled_from(added))
            getattr(claims, step)(offset)
            if step != "finished":
                safe.add(offset)
    assert set(claims.unclaimed()) <= set(added) - safe
    assert claims.uncommitted() == len(set(added) - safe)
