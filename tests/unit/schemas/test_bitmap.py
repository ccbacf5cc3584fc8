"""Bitmaps of lines behave as sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas import bitmap

lines = st.sets(st.integers(0, 300))


@given(one=lines, other=lines, line=st.integers(0, 300), end=st.integers(0, 320))
def test_bitmaps_are_sets(one: set[int], other: set[int], line: int, end: int) -> None:
    packed, second = bitmap.of(one), bitmap.of(other)
    assert bitmap.count(packed) == len(one)
    assert bitmap.width(packed) == max(one, default=-1) + 1
    assert bitmap.has(packed, line) == (line in one)
    assert bitmap.with_line(packed, line) == bitmap.of(one | {line})
    assert bitmap.union(packed, second) == bitmap.of(one | other)
    assert bitmap.overlap(packed, second) == bool(one & other)
    assert list(bitmap.missing(packed, end)) == [number for number in range(end) if number not in one]


def test_line_0_is_the_lowest_bit_of_the_first_byte() -> None:
    assert bitmap.of([0]) == b"\x01"
    assert bitmap.of([7, 8]) == b"\x80\x01"
    assert bitmap.of([]) == b""
