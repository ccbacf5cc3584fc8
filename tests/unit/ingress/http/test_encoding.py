"""Compressed bodies, however they are cut and whatever they hold."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib

import pytest

from core.errors import InvalidRequest
from ingress.http.encoding import PIECE_BYTES, inflater_of

TEXT = b"".join(b"line %d\n" % number for number in range(20_000)) + os.urandom(50_000)


def raw(data: bytes) -> bytes:
    """Compress without a frame, as some clients do for deflate."""
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


def inflated(coding: str, data: bytes, *, size: int) -> bytes:
    inflater = inflater_of(coding)
    assert inflater is not None
    out = [piece for at in range(0, len(data), size) for piece in inflater.feed(data[at : at + size])]
    inflater.check_end()
    assert max(map(len, out), default=0) <= PIECE_BYTES
    return b"".join(out)


@pytest.mark.parametrize("size", [1, 7, 1_000, 10_000_000])
@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("GZIP ", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:70_000]) + gzip.compress(b"") + gzip.compress(TEXT[70_000:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw(TEXT)),
    ],
)
def test_what_was_packed_comes_out(coding: str, data: bytes, size: int) -> None:
    assert inflated(coding, data, size=size) == TEXT


@pytest.mark.parametrize("length", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES])
@pytest.mark.parametrize("size", [1, 10_000_000])
def test_at_the_edges_of_a_piece(length: int, size: int) -> None:
    assert inflated("gzip", gzip.compress(b"a" * length), size=size) == b"a" * length


@pytest.mark.parametrize("value", ["", "identity", " Identity "])
def test_a_plain_body_is_left_alone(value: str) -> None:
    assert inflater_of(value) is None


@pytest.mark.parametrize("value", ["br", "zstd", "gzip, gzip", "gzip;q=1", "compress"])
def test_other_codings_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="content-encoding"):
        inflater_of(value)


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", b""),
        ("deflate", b""),
        ("gzip", b"no gzip at all"),
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT)[:-1]),
        ("gzip", gzip.compress(TEXT) + b"more"),
        ("gzip", gzip.compress(TEXT)[:-8] + b"\0" * 8),
        ("deflate", zlib.compress(TEXT)[:-4]),
        ("deflate", zlib.compress(TEXT) + b"more"),
        ("deflate", b"\xff\xff\xff"),
    ],
)
def test_what_is_broken_is_refused(coding: str, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="body"):
        inflated(coding, data, size=10_000_000)


def test_a_bomb_is_never_held() -> None:
    """A thousand times its own length, taken a piece at a time: what is kept is the piece."""
    packed = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packed.compress(b"\0" * 1_048_576) for _ in range(100)) + packed.flush()
    inflater = inflater_of("gzip")
    assert inflater is not None
    tracemalloc.start()
    try:
        size = sum(map(len, inflater.feed(bomb)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 100 * 1_048_576
    assert peak < 10 * PIECE_BYTES + 2 * len(bomb)
