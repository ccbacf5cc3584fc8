"""When a delivery is retried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.retry_after import MAX_RETRY_AFTER_S
from core.settings.models import Settings
from dispatcher.webhooks.retry_schedule import (
    MIN_DEFERRAL_MS,
    deferral_ms,
    delay_tier,
    give_up_after_ms,
    next_wait_ms,
)
from schemas.topics import DAY_MS, RETRY_DELAYS_S

DEFAULT = Settings().webhooks.retry_delays


def test_the_retry_schedule_is_about_three_days_long() -> None:
    assert DEFAULT == [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert 75 < sum(DEFAULT) / 3600 < 76
    assert set(DEFAULT) <= set(RETRY_DELAYS_S), "every step is a topic of its own"
    assert give_up_after_ms(DEFAULT) < 7 * DAY_MS, "results are kept for longer"


@pytest.mark.parametrize("step", range(1, 10))
def test_each_step_is_followed_by_its_delay_and_some_jitter(step: int) -> None:
    waits = [next_wait_ms(step, DEFAULT, retry_after_s=None, rng=lambda n=n: n / 10) for n in range(11)]  # type: ignore[misc]
    assert waits[0] == DEFAULT[step - 1] * 1000
    assert waits == sorted(waits)
    assert waits[10] == pytest.approx(DEFAULT[step - 1] * 1100)


def test_after_the_last_step_there_is_none() -> None:
    assert next_wait_ms(10, DEFAULT, retry_after_s=100, rng=lambda: 0) is None
    assert next_wait_ms(1, [], retry_after_s=None, rng=lambda: 0) is None


def test_a_receiver_may_ask_for_more_time_and_not_for_less() -> None:
    assert next_wait_ms(1, [5], retry_after_s=60, rng=lambda: 0) == 60_000
    assert next_wait_ms(1, [5], retry_after_s=1, rng=lambda: 0) == 5_000
    assert next_wait_ms(1, [5], retry_after_s=10**9, rng=lambda: 0) == MAX_RETRY_AFTER_S * 1000


@given(wait_ms=st.integers(-1_000, 3 * DAY_MS))
def test_any_wait_is_a_way_over_the_topics_that_never_overshoots(wait_ms: int) -> None:
    left, hops = wait_ms, 0
    while left > MIN_DEFERRAL_MS:
        assert delay_tier(left) * 1000 <= left
        left -= delay_tier(left) * 1000
        hops += 1
    assert left <= MIN_DEFERRAL_MS
    assert hops < 80


@given(age_ms=st.integers(0, 10**9), share=st.floats(0, 1))
def test_the_longer_a_host_is_away_the_longer_it_is_left_alone(age_ms: int, share: float) -> None:
    wait = deferral_ms(age_ms=age_ms, rng=lambda: share)
    assert 1_000 <= wait <= 305_000
    assert wait <= deferral_ms(age_ms=age_ms + 600_000, rng=lambda: share)
    assert wait - delay_tier(wait) * 1000 <= MIN_DEFERRAL_MS, "one topic, and the rest in memory"
