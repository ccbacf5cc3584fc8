"""Which limit counts, how fast a queue drains, and when to come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.drain_rate import LEAST_RETRY_S, MOST_RETRY_S, STALLED_S, UNKNOWN_RETRY_S, DrainRate, limit_of, retry_after_s
from core.settings.models import Settings
from tests.support.records import queue


@pytest.mark.parametrize(
    ("own", "listed", "usual", "limit"),
    [
        (None, None, 0, 0),
        (None, None, 9, 9),
        (None, 5, 9, 5),
        (None, 0, 9, 0),
        (3, 5, 9, 3),
        (0, 5, 9, 0),
        (3, None, 0, 3),
    ],
)
def test_what_was_set_goes_before_the_file_and_that_before_the_usual(
    own: int | None, listed: int | None, usual: int, limit: int
) -> None:
    given = {"ingress": {"default_max_depth": usual}, "queues": {"q": {"max_depth": listed}}}
    settings = Settings.model_validate(given)
    assert limit_of(settings, "q", queue("q", max_waiting=own)) == limit
    assert limit_of(settings, "other", None) == usual


def drained(*, per_s: float, seconds: float, drain: DrainRate | None = None, at_s: float = 0.0) -> DrainRate:
    """Let tasks begin evenly while others wait."""
    made = drain or DrainRate()
    made.set_waiting(True, now_s=at_s)
    for number in range(round(per_s * seconds)):
        made.record_start(now_s=at_s + (number + 1) / per_s)
    return made


@given(per_s=st.floats(0.2, 500), seconds=st.floats(20, 60))
def test_an_even_pace_is_measured(per_s: float, seconds: float) -> None:
    rate = drained(per_s=per_s, seconds=seconds).rate(now_s=seconds)
    assert rate == pytest.approx(per_s, rel=0.35 if per_s < 2 else 0.1)


def test_an_idle_queue_is_not_a_slow_one() -> None:
    drain = drained(per_s=10, seconds=30)
    drain.set_waiting(False, now_s=30)
    assert drain.rate(now_s=86_400) == pytest.approx(10, rel=0.1)
    drain.set_waiting(True, now_s=86_400)
    assert drain.rate(now_s=86_401) == pytest.approx(10, rel=0.2)


def test_a_new_pace_shows_within_some_tens_of_seconds() -> None:
    drain = drained(per_s=10, seconds=30)
    drained(per_s=100, seconds=20, drain=drain, at_s=30)
    assert drain.rate(now_s=50) > 70


def test_nothing_that_begins_is_no_pace() -> None:
    assert DrainRate().rate(now_s=5) == 0
    drain = drained(per_s=10, seconds=10)
    slower = [drain.rate(now_s=10 + STALLED_S / 4 * step) for step in range(5)]
    assert slower == sorted(slower, reverse=True)
    assert slower[-1] > 0
    assert drain.rate(now_s=10 + STALLED_S + 0.1) == 0
    drain.record_start(now_s=10 + STALLED_S + 1)
    assert drain.rate(now_s=10 + STALLED_S + 1) > 0


def test_one_that_begins_at_once_is_no_pace_of_thousands() -> None:
    drain = DrainRate()
    drain.set_waiting(True, now_s=0)
    drain.record_start(now_s=0.001)
    assert drain.rate(now_s=0.001) <= 1


@given(waiting=st.integers(0, 10**9), limit=st.integers(1, 10**9), rate=st.floats(0, 1e6))
def test_retry_after_is_bounded(waiting: int, limit: int, rate: float) -> None:
    assert LEAST_RETRY_S <= retry_after_s(waiting, limit, rate) <= MOST_RETRY_S


def test_retry_after_is_the_time_until_a_tenth_is_free() -> None:
    assert retry_after_s(1_000, 1_000, 10) == pytest.approx(10)
    assert retry_after_s(1_500, 1_000, 10) == pytest.approx(60)
    assert retry_after_s(2, 2, 0.1) == pytest.approx(10)
    assert retry_after_s(2, 2, 0) == UNKNOWN_RETRY_S
