"""Decompress record batches within a size limit: a batch of 1 MB may expand to a thousand times its size."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import cramjam

MAX_BYTES = 64 << 20
"""Decompressed limit of one batch. Producers send 1 MB or less by default, counted before compression."""
FIRST_GUESS = 8
GZIP = 16 + zlib.MAX_WBITS
XERIAL = b"\x82SNAPPY\0"
"""Magic bytes of Java's snappy framing: blocks, each with its length."""
XERIAL_BYTES = 16

NAMES: Mapping[int, str] = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""The codec in the attributes of a batch → its name."""
READABLE = frozenset({*NAMES.values(), "uncompressed", "producer"})
"""Values of `compression.type` of a topic or broker that can be read."""


class Unpackable(Exception):
    """The compressed part of a batch cannot be decompressed."""


def decompress(codec: int, data: bytes) -> bytes:
    """Return the decompressed records of a batch; raises Unpackable."""
    try:
        unpack = _UNPACK[codec]
    except KeyError:
        raise Unpackable(f"compression codec {codec} is not known") from None
    try:
        return unpack(data)
    except (cramjam.DecompressionError, zlib.error, ValueError, OverflowError) as error:
        raise Unpackable(f"its {NAMES[codec]} data is damaged: {error}") from error


def _gzip(data: bytes) -> bytes:
    out = bytearray()
    while data:
        member = zlib.decompressobj(GZIP)
        out += member.decompress(data, MAX_BYTES + 1 - len(out))
        if len(out) > MAX_BYTES:
            raise _too_large()
        if not member.eof:
            raise Unpackable("its gzip data is cut off")
        data = member.unused_data
    return bytes(out)


def _snappy(data: bytes) -> bytes:
    if not data.startswith(XERIAL):
        return _snappy_block(data)
    out, at = bytearray(), XERIAL_BYTES
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        out += _snappy_block(data[at + 4 : end])
        if len(out) > MAX_BYTES:
            raise _too_large()
        if end > len(data):
            raise Unpackable("its snappy data is cut off")
        at = end
    return bytes(out)


def _snappy_block(data: bytes) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > MAX_BYTES:
        raise _too_large()
    return bytes(cramjam.snappy.decompress_raw(data))


def _into(unpack: Callable[[bytes, bytearray], int]) -> Callable[[bytes], bytes]:
    """Decompress into a buffer that grows up to the limit."""

    def unpacked(data: bytes) -> bytes:
        room = min(MAX_BYTES, max(1 << 16, FIRST_GUESS * len(data)))
        while True:
            buffer = bytearray(room)
            try:
                size = unpack(data, buffer)
            except cramjam.DecompressionError as error:
                if "whole buffer" not in str(error):
                    raise
                if room >= MAX_BYTES:
                    raise _too_large() from error
                room = min(MAX_BYTES, room * FIRST_GUESS)
            else:
                return bytes(memoryview(buffer)[:size])

    return unpacked


def _too_large() -> Unpackable:
    return Unpackable(f"it unpacks to more than {MAX_BYTES >> 20} MiB")


_UNPACK: Mapping[int, Callable[[bytes], bytes]] = {
    1: _gzip,
    2: _snappy,
    3: _into(cramjam.lz4.decompress_into),
    4: _into(cramjam.zstd.decompress_into),
}
