"""Decode the record batches of a fetch response; corrupt records are returned as such. Pure.

All our readers use it (core/kafka/fetching.py installs it). Nothing in a response raises: a record with corrupt
contents is returned as one undecodable record, a batch that is corrupt from some record on as one for its remaining
offsets, and decoding continues behind it. The owner of the record dead-letters it; other readers skip it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from core.kafka.codecs import Unpackable, decompress
from core.kafka.record_format import HEAD, Head, Headers, Unpacked, Unread, read_record, varint

PREFIX = struct.Struct(">qiib")
"""Base offset, length of the rest, leader epoch, magic: at the same positions in every format."""
LOG_BYTES = 12
"""Offset and length fields, which the length does not include."""
MAGIC = 2
CODEC, TRANSACTIONAL = 0x07, 0x10


class Unpacking:
    """Iterator over the records of a fetch; `position` is the offset after the last returned record."""

    def __init__(
        self,
        raw: bytes,
        begin: int,
        aborted: Iterable[tuple[int, int]] | None = None,
        *,
        certain: bool = False,
        again: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """Prepare the iteration.

        Args:
            raw: the record batches from the broker.
            begin: the requested offset; a batch may start before it.
            aborted: producer ids and the first offsets of their aborted transactions.
            certain: skip transactional records; the others are final even behind an open transaction.
            again: called with the offset of a batch with a wrong checksum; returns whether to fetch it again.
        """
        self._raw = raw
        self._begin = begin
        self._aborted = sorted(aborted or (), key=lambda one: one[1])
        self._aborting: set[int] = set()
        self._certain = certain
        self._again = again
        self._stopped = False
        self._ms = 0
        self.position = begin
        self.since = begin
        """Start of the offset gap before the position."""

    def __iter__(self) -> Iterator[Unpacked]:
        raw, at = self._raw, 0
        while len(raw) - at >= PREFIX.size:
            base, length, _, magic = PREFIX.unpack_from(raw, at)
            end = at + LOG_BYTES + length
            if end < at + PREFIX.size:
                yield self._broken(f"a batch with the length {length}", self.position)
                return
            if end > len(raw):
                break  # truncated by the fetch limit: the next fetch returns it completely
            yield from self._batch(raw[at:end], base, magic)
            if self._stopped:
                return
            at = end
        if at == 0 and raw:
            yield self._broken("a batch that is cut off", self.position)
        elif raw and self.position == self._begin:
            yield self._broken("a batch that does not hold the offset it was found at", self.position)

    def _batch(self, data: bytes, base: int, magic: int) -> Iterator[Unpacked]:
        last = base
        try:
            if magic < MAGIC:
                yield from self._legacy(data, base, magic)
            elif magic > MAGIC or len(data) < HEAD.size:
                what = f"the format {magic} is not known" if magic > MAGIC else "the head is cut off"
                yield self._broken(f"a batch of which {what}", last)
            else:
                head = Head(*HEAD.unpack_from(data))
                last = base + head.last_delta
                if last >= self.position:
                    yield from self._known_batch(data, head, last)
        except Exception as error:  # noqa: BLE001 - of whatever kind, it must not end who reads
            yield self._broken(f"a batch that cannot be read: {error!r}", last)

    def _known_batch(self, data: bytes, head: Head, last: int) -> Iterator[Unpacked]:
        self._ms = head.max_ms
        batch = DefaultRecordBatch(data)
        if not batch.validate_crc():
            yield from self._damaged(last)
            return
        if not self._left_out(batch, head):
            yield from self._records(data, head, last)
        self.position = max(self.position, last + 1)

    def _damaged(self, last: int) -> Iterator[Unpacked]:
        if self._again(self.position):
            self._stopped = True
        else:
            yield self._broken("a batch whose checksum does not match its bytes", last)

    def _left_out(self, batch: Any, head: Head) -> bool:
        """Return whether a batch is a transaction marker, or part of an aborted transaction."""
        while self._aborted and self._aborted[0][1] <= head.base:
            self._aborting.add(self._aborted.pop(0)[0])
        if batch.is_control_batch:
            if ControlRecord.parse(next(iter(batch)).key) == ABORT_MARKER:
                self._aborting.discard(head.producer)
            return True
        transactional = bool(head.attributes & TRANSACTIONAL)
        return transactional and (self._certain or head.producer in self._aborting)

    def _records(self, data: bytes, head: Head, last: int) -> Iterator[Unpacked]:
        try:
            plain = _unpacked(data, head)
        except Unpackable as error:
            yield self._broken(f"a batch of which {error}", last)
            return
        try:
            records = list(DefaultRecordBatch(plain))
        except Exception:  # noqa: BLE001 - which of them it is, and why, is looked at one by one
            yield from self._one_by_one(plain, head, last)
            return
        for record in records:
            if record.offset < self._begin:
                continue  # the batch starts before the requested offset
            if not self.position <= record.offset <= last:
                yield self._broken(f"a record that calls itself offset {record.offset}", last)
                return
            yield self._given(
                record.offset, record.timestamp, record.timestamp_type, record.key, record.value, record.headers
            )

    def _one_by_one(self, plain: bytes, head: Head, last: int) -> Iterator[Unpacked]:
        """Decode a batch that the library rejects; records carry their length, so a corrupt one affects no other."""
        at, following = HEAD.size, head.base
        for _ in range(head.records):
            try:
                length, at = varint(plain, at)
                end = at + length
                if length < 0 or end > len(plain):
                    raise ValueError(f"a record of {length} bytes")
            except (ValueError, IndexError) as error:
                yield self._broken(f"the rest of a batch: {error}", last)
                return
            found = read_record(plain[at:end], head, following)
            at, following = end, found.offset + 1
            if found.offset < self._begin:
                continue
            if not self.position <= found.offset <= last:
                yield self._broken(f"a record that calls itself offset {found.offset}", last)
                return
            yield self._given(*found[:-1])

    def _legacy(self, data: bytes, base: int, magic: int) -> Iterator[Unpacked]:
        """Decode a format before Kafka 0.11: `base` is the last offset of such a batch."""
        batch = LegacyRecordBatch(data, magic)
        if not batch.validate_crc():
            yield from self._damaged(base)
            return
        for record in list(batch):
            if record.offset >= self.position:
                yield self._given(record.offset, record.timestamp, record.timestamp_type, record.key, record.value, ())

    def _given(
        self, offset: int, timestamp: int, kind: int | None, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Unpacked:
        since, self.since, self.position = self.since, offset + 1, offset + 1
        return Unpacked(offset, timestamp, kind, key, value, headers, since)

    def _broken(self, reason: str, last: int) -> Unpacked:
        first = self.position
        last = max(first, last)
        if last > first:
            reason = f"{reason} (offsets {first} to {last})"
        since, self.since, self.position = self.since, last + 1, last + 1
        return Unpacked(first, self._ms, 0, None, None, Unread.because(reason, last), since)


def _unpacked(data: bytes, head: Head) -> bytes:
    """Return a batch with decompressed records; raises Unpackable."""
    codec = head.attributes & CODEC
    if codec == 0:
        return data
    body = decompress(codec, data[HEAD.size :])
    plain = head._replace(length=HEAD.size - LOG_BYTES + len(body), attributes=head.attributes & ~CODEC)
    return HEAD.pack(*plain) + body
