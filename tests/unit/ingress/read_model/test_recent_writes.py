"""What a tenant has just put: remembered once, for a moment, and within bounds."""

from __future__ import annotations

import pytest

from ingress.read_model import recent_writes
from ingress.read_model.recent_writes import MAX_KEYS, RECENT_S, RecentWrites


def test_each_tenant_has_its_own_and_takes_them_once() -> None:
    writes = RecentWrites()
    for number in range(3):
        writes.add("one", b"%d" % number, offset=0)
    writes.add("two", b"x", offset=0)
    assert writes.take("one") == [b"0", b"1", b"2"]
    assert writes.take("one") == []
    assert writes.take("two") == [b"x"]


def test_old_ones_are_forgotten() -> None:
    now = 0.0
    writes = RecentWrites(clock=lambda: now)
    writes.add("one", b"old", offset=0)
    now = RECENT_S
    writes.add("one", b"young", offset=0)
    now += 1
    assert writes.take("one") == [b"young"]


def test_both_numbers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_writes, "MAX_OWNERS", 2)
    writes = RecentWrites()
    for number in range(MAX_KEYS + 5):
        writes.add("many", b"%d" % number, offset=0)
    assert len(writes.take("many")) == MAX_KEYS
    for owner in ("one", "two", "three"):
        writes.add(owner, b"x", offset=0)
    assert [writes.take(owner) for owner in ("one", "two", "three")] == [[], [b"x"], [b"x"]]


def test_the_last_offsets_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_writes, "MIN_OFFSETS", 2)
    writes = RecentWrites()
    for number in range(5):
        writes.add("one", b"%d" % number, offset=number + 7)
    found = [writes.offset_of(b"%d" % number) for number in range(5)]
    assert found[0] is None
    assert found[-2:] == [10, 11]
