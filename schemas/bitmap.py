"""Sets of line numbers as bitmaps: line n is bit n % 8 of byte n // 8, the lowest bit first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_LOW_FIRST: Final = "little"


def has(bits: bytes, line: int) -> bool:
    """Return whether a line is in the set."""
    return line >> 3 < len(bits) and bool(bits[line >> 3] >> (line & 7) & 1)


def with_line(bits: bytes, line: int) -> bytes:
    """Return the set with this line added."""
    out = bytearray(bits.ljust((line >> 3) + 1, b"\0"))
    out[line >> 3] |= 1 << (line & 7)
    return bytes(out)


def of(lines: Iterable[int]) -> bytes:
    """Return the set of these lines."""
    out = bytearray()
    for line in lines:
        if line >> 3 >= len(out):
            out.extend(bytes((line >> 3) + 1 - len(out)))
        out[line >> 3] |= 1 << (line & 7)
    return bytes(out)


def count(bits: bytes) -> int:
    """Return the number of lines in the set."""
    return int.from_bytes(bits, _LOW_FIRST).bit_count()


def width(bits: bytes) -> int:
    """Return the highest line number in the set plus 1; 0 for the empty set."""
    return int.from_bytes(bits, _LOW_FIRST).bit_length()


def union(one: bytes, other: bytes) -> bytes:
    """Return the union of two sets."""
    size = max(len(one), len(other))
    return (int.from_bytes(one, _LOW_FIRST) | int.from_bytes(other, _LOW_FIRST)).to_bytes(size, _LOW_FIRST)


def overlap(one: bytes, other: bytes) -> bool:
    """Return whether two sets have a line in common."""
    return bool(int.from_bytes(one, _LOW_FIRST) & int.from_bytes(other, _LOW_FIRST))


def missing(bits: bytes, end: int) -> Iterator[int]:
    """Iterate over the lines below `end` that are not in the set, in order."""
    return (line for line in range(end) if not has(bits, line))
