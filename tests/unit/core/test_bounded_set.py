"""A bounded set holds the newest keys, and never more than twice its minimum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.bounded_set import BoundedDict, BoundedSet

KEYS = st.lists(st.integers(0, 30), max_size=200)


def test_the_oldest_keys_are_dropped_first() -> None:
    bounded: BoundedSet[bytes] = BoundedSet(at_least=3)
    for number in range(8):
        bounded.add(b"%d" % number)
    assert [number for number in range(8) if b"%d" % number in bounded] == [3, 4, 5, 6, 7]
    bounded.clear()
    assert len(bounded) == 0


@given(keys=KEYS, at_least=st.integers(1, 10))
def test_the_newest_keys_are_held(keys: list[int], at_least: int) -> None:
    bounded: BoundedSet[int] = BoundedSet(at_least=at_least)
    entries: BoundedDict[int, int] = BoundedDict(at_least=at_least)
    for place, key in enumerate(keys):
        bounded.add(key)
        entries[key] = place
        assert len(bounded) == len(entries) <= 2 * at_least
    newest = list(dict.fromkeys(reversed(keys)))[:at_least]
    assert [key in bounded for key in newest] == [True] * len(newest)
    last = {key: place for place, key in enumerate(keys)}
    assert [entries.get(key) for key in newest] == [last[key] for key in newest]


@pytest.mark.parametrize("older", [False, True])
def test_a_key_is_removed_from_either_generation(older: bool) -> None:
    bounded: BoundedSet[str] = BoundedSet(at_least=2)
    entries: BoundedDict[str, int] = BoundedDict(at_least=2)
    for key in ("a", "b") if older else ("a",):
        bounded.add(key)
        entries[key] = 1
    assert ("a" in bounded, "a" in entries, entries.get("a", 0)) == (True, True, 1)
    bounded.discard("a")
    bounded.discard("never there")
    entries.discard("a")
    entries.discard("never there")
    assert ("a" in bounded, "a" in entries, entries.get("a"), entries.get("a", 0)) == (False, False, None, 0)
