"""The bound of offline calls follows how late the process is, and only while online tasks come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.inference.adaptive_limit import LATE_S, LEAST, RECENT_S, AdaptiveLimit
from dispatcher.inference.slots import OFFLINE, CallSlots, SlotRules
from tests.support.clocks import SecondClock


def test_a_late_process_makes_room_and_takes_it_back() -> None:
    slots, clock = CallSlots(share=0.1, capacity=64), SecondClock()
    pace = AdaptiveLimit(slots, monotonic=clock)
    pace.look(LATE_S * 5)
    assert slots.offline_most is None  # nobody to make room for
    pace.online()
    pace.look(LATE_S * 5)
    assert (slots.offline_most, slots.room(OFFLINE)) == (32, 32)
    for _ in range(5):
        pace.look(LATE_S * 5)
    assert slots.offline_most == LEAST
    for _ in range(100):
        pace.look(0)
    assert slots.offline_most is None
    assert slots.room(OFFLINE) == 58


def test_without_online_tasks_the_bound_goes() -> None:
    slots, clock = CallSlots(share=0.1, capacity=64), SecondClock()
    pace = AdaptiveLimit(slots, monotonic=clock)
    pace.online()
    pace.look(1)
    clock.now_s += RECENT_S + 1
    pace.look(1)
    assert slots.offline_most is None


@given(st.integers(0, 80), st.integers(0, 80), st.floats(0, 0.9))
def test_a_bound_takes_neither_share(capacity: int, bound: int, share: float) -> None:
    rules = SlotRules(share)
    most = rules.most_offline(capacity, bound)
    assert min(rules.kept(capacity), capacity - rules.kept(capacity)) <= most <= capacity - rules.kept(capacity)
