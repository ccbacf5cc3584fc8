"""Decode one record of the batch format v2 (Kafka 0.11 and later). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

HEAD = struct.Struct(">qiibIhiqqqhii")
LOG_APPEND = 0x08
MAX_REASON = 300

Headers = Sequence[tuple[str, bytes | None]]


class Unread(tuple[tuple[str, bytes | None], ...]):  # noqa: SLOT001 - a tuple that can be empty takes no slots
    """Headers of a record that could not be decoded completely."""

    reason: str
    last: int
    """Last offset of the range that could not be decoded."""
    whole: bool
    """Whether key and value are known; then the record can be redriven without its invalid headers."""

    @classmethod
    def because(
        cls, reason: str, last: int, headers: Iterable[tuple[str, bytes | None]] = (), *, whole: bool = False
    ) -> Unread:
        """Create the headers."""
        made = cls(headers)
        made.reason, made.last, made.whole = reason[:MAX_REASON], last, whole
        return made


def unread(record: Any) -> Unread | None:
    """Return why a record could not be decoded; None if it was."""
    headers = record.headers
    return headers if isinstance(headers, Unread) else None


class Unpacked(NamedTuple):
    """One record of a fetch response."""

    offset: int
    timestamp: int
    timestamp_type: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    since: int
    """Start of the offset gap before the record, left by transactions and compaction."""


class Head(NamedTuple):
    """Header of a batch."""

    base: int
    length: int
    epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_ms: int
    max_ms: int
    producer: int
    producer_epoch: int
    sequence: int
    records: int


def read_record(data: bytes, head: Head, following: int) -> Unpacked:
    """Decode one record; errors are added to its headers, with everything that can be decoded."""
    offset, timestamp = following, head.max_ms
    key: bytes | None = None
    value: bytes | None = data
    headers: list[tuple[str, bytes | None]] = []
    reason, whole = None, True
    try:
        delta_ms, at = varint(data, 1)
        delta, at = varint(data, at)
        offset = head.base + delta
        if not head.attributes & LOG_APPEND:
            timestamp = head.first_ms + delta_ms
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = varint(data, at)
        for _ in range(count):
            name, at = _bytes(data, at)
            content, at = _bytes(data, at)
            if name is None:
                raise ValueError("a header without a name")
            try:
                readable = name.decode()
            except UnicodeDecodeError:
                readable = name.decode(errors="backslashreplace")
                reason = f"the header name {readable[:100]} is not UTF-8"
            headers.append((readable, content))
        if at != len(data) or count < 0:
            raise ValueError(f"{len(data)} bytes of which {at} are used")
    except (ValueError, IndexError) as error:
        reason, key, value, whole = f"a record that cannot be read: {error}", None, data, False
    kind = int(bool(head.attributes & LOG_APPEND))
    found_headers = headers if reason is None else Unread.because(reason, offset, headers, whole=whole)
    return Unpacked(offset, timestamp, kind, key, value, found_headers, offset)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode a zigzag varint; returns it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise ValueError("a number of more than ten bytes")


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = varint(data, at)
    if length < 0:
        return None, at
    if at + length > len(data):
        raise ValueError(f"{length} bytes where {len(data) - at} are left")
    return data[at : at + length], at + length
