"""The limit of offline calls follows the lag of the event loop, only while online tasks arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.inference.concurrency import (
    MAX_LAG_S,
    MIN_SLOTS,
    OFFLINE,
    RECENT_S,
    AdaptiveLimit,
    CallSlots,
    SlotRules,
)
from tests.support.clocks import SecondClock


def test_a_late_process_makes_room_and_takes_it_back() -> None:
    slots, clock = CallSlots(share=0.1, capacity=64), SecondClock()
    pace = AdaptiveLimit(slots, monotonic=clock)
    pace.observe_lag(MAX_LAG_S * 5)
    assert slots.max_offline is None  # no online tasks
    pace.note_online()
    pace.observe_lag(MAX_LAG_S * 5)
    assert (slots.max_offline, slots.available(OFFLINE)) == (32, 32)
    for _ in range(5):
        pace.observe_lag(MAX_LAG_S * 5)
    assert slots.max_offline == MIN_SLOTS
    for _ in range(100):
        pace.observe_lag(0)
    assert slots.max_offline is None
    assert slots.available(OFFLINE) == 58


def test_without_online_tasks_the_bound_goes() -> None:
    slots, clock = CallSlots(share=0.1, capacity=64), SecondClock()
    pace = AdaptiveLimit(slots, monotonic=clock)
    pace.note_online()
    pace.observe_lag(1)
    clock.now_s += RECENT_S + 1
    pace.observe_lag(1)
    assert slots.max_offline is None


@given(st.integers(0, 80), st.integers(0, 80), st.floats(0, 0.9))
def test_a_bound_takes_neither_share(capacity: int, bound: int, share: float) -> None:
    rules = SlotRules(share)
    most = rules.max_offline(capacity, bound)
    assert (
        min(rules.reserved(capacity), capacity - rules.reserved(capacity))
        <= most
        <= capacity - rules.reserved(capacity)
    )
