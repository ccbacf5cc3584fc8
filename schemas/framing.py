"""Confluent framing: a zero byte, the schema id in four bytes, big endian, then the Avro body.

Used instead of single-object encoding because Kafka Connect, SQL engines and UIs support it.
"""

from __future__ import annotations

import struct

MAGIC = 0
HEADER = struct.Struct(">bI")


class FramingError(ValueError):
    """The bytes do not begin with the Confluent framing."""


def frame(schema_id: int, body: bytes) -> bytes:
    """Prepend the framing to an Avro body."""
    return HEADER.pack(MAGIC, schema_id) + body


def unframe(data: bytes) -> tuple[int, int]:
    """Return the schema id and the start of the body."""
    if len(data) < HEADER.size:
        raise FramingError(f"a framed record has at least {HEADER.size} bytes, this one has {len(data)}")
    magic, schema_id = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FramingError(f"a framed record begins with 0, this one with {magic & 0xFF}")
    return schema_id, HEADER.size
