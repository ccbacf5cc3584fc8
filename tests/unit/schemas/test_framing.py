from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.framing import FramingError, frame, unframe


@given(schema_id=st.integers(0, 2**32 - 1), body=st.binary())
def test_what_was_framed_is_found(schema_id: int, body: bytes) -> None:
    framed = frame(schema_id, body)
    found, start = unframe(framed)
    assert (found, framed[start:]) == (schema_id, body)


def test_the_bytes_are_those_of_the_confluent_wire_format() -> None:
    assert frame(258, b"body") == b"\x00\x00\x00\x01\x02body"


@given(data=st.binary(max_size=4))
def test_too_short_is_refused(data: bytes) -> None:
    with pytest.raises(FramingError, match="has at least 5 bytes"):
        unframe(data)


@given(first=st.integers(1, 255), rest=st.binary(min_size=4))
def test_another_first_byte_is_refused_and_named(first: int, rest: bytes) -> None:
    with pytest.raises(FramingError, match=f"this one with {first}"):
        unframe(bytes([first]) + rest)
