"""Tokens by a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.token_bucket import WINDOW_S, TokenBucket


def test_a_minutes_worth_at_once_and_then_evenly() -> None:
    bucket = TokenBucket(3, now_s=100)
    assert [bucket.take(100) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100) == pytest.approx(20)
    assert bucket.take(119) == pytest.approx(1)
    assert bucket.take(120) == 0
    assert bucket.full_in_s == pytest.approx(60)


@given(limit=st.integers(1, 50), steps=st.lists(st.floats(-30, 30), max_size=200))
def test_never_more_than_the_limit_and_what_came_back(limit: int, steps: list[float]) -> None:
    """Whatever the clock does: what it goes back by counts for nothing, and may be passed a second time."""
    now_s, passed_s, taken, bucket = 1_000.0, 0.0, 0, TokenBucket(limit, now_s=1_000.0)
    for step in steps:
        now_s, passed_s = now_s + step, passed_s + max(0.0, step)
        wait_s = bucket.take(now_s)
        taken += not wait_s
        assert 0 <= wait_s <= WINDOW_S / limit + 1e-6
        assert taken <= limit + passed_s * limit / WINDOW_S + 1e-6


@given(limit=st.integers(1, 1_000))
def test_a_client_that_returns_after_retry_after_is_admitted(limit: int) -> None:
    bucket, now_s = TokenBucket(limit, now_s=0), 0.0
    for _ in range(limit + 3):
        if wait_s := bucket.take(now_s):
            now_s += wait_s + 1e-6
            assert bucket.take(now_s) == 0
