"""Compressed request bodies, taken apart as they come: never more than a piece at a time. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from core.errors import InvalidRequest

PIECE_BYTES = 65_536
"""Of what comes out at once: a bomb is stopped by the limit of its route, a piece after it is passed."""
CODINGS = ("gzip", "x-gzip", "deflate", "identity")
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_METHOD = 8
"""What the low half of a zlib stream's first byte is; a bare deflate stream, which some send, does not begin so."""


class Inflater:
    """Feed a body as it comes; raises InvalidRequest for one that is not what its header says."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream = None if coding == "deflate" else zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out of a piece, in pieces."""
        more = False
        while data or more:
            stream = self._stream = self._stream or _deflated(data)
            if stream.eof:
                if self._coding == "deflate":
                    raise self._broken()
                stream = self._stream = zlib.decompressobj(_GZIP)  # a gzip file may be several, one after another
            try:
                out = stream.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise self._broken() from None
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            more = len(out) == PIECE_BYTES and not stream.eof  # what is left may be inside the stream alone
            if out:
                yield out

    def check_end(self) -> None:
        """Refuse a body that broke off."""
        if self._stream is None or not self._stream.eof:
            raise self._broken()

    def _broken(self) -> InvalidRequest:
        return InvalidRequest(f"the body is not valid {self._coding}, as its content-encoding says", field="body")


def _deflated(begin: bytes) -> zlib._Decompress:
    return zlib.decompressobj(_ZLIB if begin[0] & 0x0F == _ZLIB_METHOD else _RAW)


def inflater_of(value: str) -> Inflater | None:
    """Return what takes a content-encoding apart, None for a plain body; raises InvalidRequest for any other."""
    coding = value.strip().lower() or "identity"
    if coding not in CODINGS:
        known = ", ".join(CODINGS)
        raise InvalidRequest(f"content-encoding {coding[:40]} is not supported; there are {known}", field="body")
    return None if coding == "identity" else Inflater(coding.removeprefix("x-"))
