"""Bitmaps of lines behave as sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas import bits

lines = st.sets(st.integers(0, 300))


@given(one=lines, other=lines, line=st.integers(0, 300), end=st.integers(0, 320))
def test_bitmaps_are_sets(one: set[int], other: set[int], line: int, end: int) -> None:
    packed, second = bits.of(one), bits.of(other)
    assert bits.count(packed) == len(one)
    assert bits.width(packed) == max(one, default=-1) + 1
    assert bits.has(packed, line) == (line in one)
    assert bits.with_line(packed, line) == bits.of(one | {line})
    assert bits.union(packed, second) == bits.of(one | other)
    assert bits.overlap(packed, second) == bool(one & other)
    assert list(bits.missing(packed, end)) == [number for number in range(end) if number not in one]


def test_line_0_is_the_lowest_bit_of_the_first_byte() -> None:
    assert bits.of([0]) == b"\x01"
    assert bits.of([7, 8]) == b"\x80\x01"
    assert bits.of([]) == b""
