"""A file is split into the same lines, however its pieces arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.batches.input_reader import InputLine, LineSplitter


def split(*pieces: bytes, max_bytes: int = 100) -> list[InputLine]:
    """Feed pieces to a splitter."""
    splitter = LineSplitter(max_bytes=max_bytes)
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()


def test_blank_lines_are_no_requests_and_keep_their_numbers() -> None:
    assert split(b"a\n\n  \nb\n\t\nc") == [InputLine(0, 1, b"a"), InputLine(1, 4, b"b"), InputLine(2, 6, b"c")]


def test_what_editors_leave_does_not_count() -> None:
    assert split(b"\xef\xbb\xbf{}\r\n{}\r\n") == split(b"{}\n{}") == [InputLine(0, 1, b"{}"), InputLine(1, 2, b"{}")]
    assert split(b"\xef\xbb\xbf") == split(b"") == split(b"\r\n\r\n") == []


def test_a_line_that_is_too_long_is_not_stored() -> None:
    pieces = [b"a\n", *[b"x" * 60] * 1000, b"\nb\n"]
    assert split(*pieces) == [InputLine(0, 1, b"a"), InputLine(1, 2, None), InputLine(2, 3, b"b")]
    assert split(b"x" * 101) == [InputLine(0, 1, None)]
    assert split(b"x" * 100) == [InputLine(0, 1, b"x" * 100)]


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r\n", b"\n\n", b"{}"]), max_size=12))
def test_where_the_pieces_end_makes_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    max_bytes = len(whole)
    expected = split(whole, max_bytes=max_bytes)
    assert split(*pieces, max_bytes=max_bytes) == expected
    assert split(*(whole[at : at + 1] for at in range(len(whole))), max_bytes=max_bytes) == expected
    assert [line.text for line in expected] == [
        text for text in (one.strip() for one in whole.removeprefix(b"\xef\xbb\xbf").split(b"\n")) if text
    ]
