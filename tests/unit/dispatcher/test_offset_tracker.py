"""Claims: the commit never passes a record of which Kafka does not know what became of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.offset_tracker import OffsetTracker


def taken(*offsets: int) -> OffsetTracker:
    claims = OffsetTracker()
    for offset in offsets:
        claims.take(offset)
    return claims


def test_nothing_taken_is_nothing_to_commit() -> None:
    assert OffsetTracker().to_commit() is None


def test_offsets_without_a_record_are_committed_over() -> None:
    claims = OffsetTracker()
    claims.passed(7)
    assert claims.to_commit() is None
    claims.take(5)
    claims.passed(8)
    assert claims.to_commit() == 5
    claims.settled(5)
    assert claims.to_commit() == 8
    assert not claims.follows(7)


def test_what_runs_keeps_the_commit_back_until_it_is_claimed() -> None:
    claims = taken(10, 11, 12)
    claims.settled(11)
    assert claims.to_commit() == 10
    claims.claimed(10)
    assert claims.to_commit() == 12
    claims.settled(12)
    assert claims.to_commit() == 13


def test_an_outcome_on_its_way_needs_no_claim_but_is_not_safe() -> None:
    claims = taken(5)
    claims.ended(5)
    assert claims.unclaimed() == []
    assert claims.to_commit() == 5
    claims.settled(5)
    assert claims.to_commit() == 6


def test_a_confirmed_commit_is_not_repeated() -> None:
    claims = taken(1)
    claims.settled(1)
    claims.committed(2)
    assert claims.to_commit() is None
    claims.committed(1)
    assert claims.to_commit() is None


def test_offsets_may_have_gaps_but_never_go_back() -> None:
    claims = taken(3, 7)
    claims.settled(3)
    assert claims.to_commit() == 7
    assert not claims.follows(6)
    with pytest.raises(ValueError, match="offset 6"):
        claims.take(6)


@given(st.data())
def test_the_commit_is_always_below_everything_unsafe(data: st.DataObject) -> None:
    claims, taken_offsets, safe, committed, following = OffsetTracker(), [], set(), -1, 0
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(st.sampled_from(["take", "ended", "claimed", "settled", "commit"]))
        if step == "take":
            following += data.draw(st.integers(0, 3))
            claims.take(following)
            taken_offsets.append(following)
            following += 1
        elif step == "commit":
            point = claims.to_commit()
            unsafe = [offset for offset in taken_offsets if offset not in safe]
            expected = min(unsafe) if unsafe else following
            if taken_offsets and expected > committed:
                assert point == expected
                committed = expected
                claims.committed(expected)
            else:
                assert point is None
        elif taken_offsets:
            offset = data.draw(st.sampled_from(taken_offsets))
            getattr(claims, step)(offset)
            if step != "ended":
                safe.add(offset)
    assert set(claims.unclaimed()) <= set(taken_offsets) - safe
    assert claims.unsafe() == len(set(taken_offsets) - safe)
