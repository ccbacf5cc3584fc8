"""The cutter of event streams: the same payloads wherever the network cut the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sse import SseParser


def cut(stream: bytes, at: list[int] | None = None) -> tuple[list[bytes], bool]:
    cutter = SseParser()
    edges = [0, *sorted(at or []), len(stream)]
    payloads = [p for a, b in pairwise(edges) for p in cutter.feed(stream[a:b])]
    return payloads + cutter.close(), cutter.done


@pytest.mark.parametrize(
    ("stream", "payloads", "done"),
    [
        (b'data: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}'], True),
        (b'data:{"a":1}\r\n\r\ndata:[DONE]\r\n\r\n', [b'{"a":1}'], True),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"], False),
        (b": hello\nid: 3\nevent: message\nretry: 5\ndata: a\n\n", [b"a"], False),
        (b"data: a\ndata: b\n\n", [b"a\nb"], False),
        (b"data:  two blanks\n\n", [b" two blanks"], False),
        (b"data\n\n", [], False),
        (b"data:\n\ndata:  \n\ndata: a\n\n", [b"a"], False),
        (b"database: x\n\n", [], False),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"], False),
        (b"data: a\n", [b"a"], False),
        (b"data: a\n\ndata: [DONE]", [b"a"], True),
        (b'data: {"half', [], False),
        (b'data: a\ndata: {"half', [], False),
        (b"data: \xff\xfe\n\n", [b"\xff\xfe"], False),
        (b"", [], False),
        (b"\n\n\n", [], False),
    ],
)
def test_known_streams(stream: bytes, payloads: list[bytes], done: bool) -> None:
    assert cut(stream) == (payloads, done)
    assert cut(stream, list(range(len(stream)))) == (payloads, done)


lines = st.lists(
    st.one_of(
        st.sampled_from([b"", b"", b":", b"data: [DONE]", b"data", b"event: x"]),
        st.binary(max_size=12).map(lambda b: b"data: " + b.translate(None, b"\r\n")),
    ),
    max_size=20,
)


@given(lines, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 400), max_size=30), st.booleans())
def test_any_cut_gives_the_same(content: list[bytes], end: bytes, at: list[int], ended: bool) -> None:
    stream = end.join(content) + (end if ended else b"")
    assert cut(stream, [min(a, len(stream)) for a in at]) == cut(stream)


def test_a_line_of_megabytes_in_small_pieces_is_not_copied_for_each() -> None:
    cutter = SseParser()
    cutter.feed(b"data: ")
    for _ in range(4096):
        assert cutter.feed(b"x" * 1024) == []
    assert [len(p) for p in cutter.feed(b"\n\n")] == [4096 * 1024]
