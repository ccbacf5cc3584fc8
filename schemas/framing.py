"""Confluent framing: a zero byte, the schema id in four bytes, big endian, then the Avro body.

Chosen over single-object encoding because Kafka Connect, SQL engines and UIs read it.
"""

from __future__ import annotations

import struct

MAGIC = 0
HEADER = struct.Struct(">bI")


class FramingError(ValueError):
    """The bytes do not begin with the framing of a registered schema."""


def frame(schema_id: int, body: bytes) -> bytes:
    """Put the framing before an Avro body."""
    return HEADER.pack(MAGIC, schema_id) + body


def unframe(data: bytes) -> tuple[int, int]:
    """Return the schema id and where the body starts."""
    if len(data) < HEADER.size:
        raise FramingError(f"{len(data)} bytes are too short for a framed record")
    magic, schema_id = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FramingError(f"first byte is {magic & 0xFF}, a framed record begins with 0")
    return schema_id, HEADER.size
