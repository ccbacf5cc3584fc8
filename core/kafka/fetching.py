"""Decode fetch responses of aiokafka's consumers with core/kafka/unpacking.py, which never raises.

aiokafka decodes the records of a fetch while it returns them. A record that it cannot decode raises: records decoded
before it are lost, the next fetch returns it again, and Faust's consumer or aiokafka's own task ends. So its two
classes for that are replaced for every consumer of the process. These are private; canary tests check them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from prometheus_client import Counter

from core.kafka.aiokafka_patches import assignment_of
from core.kafka.record_format import Unread, unread
from core.kafka.unpacking import Unpacking

log = logging.getLogger(__name__)

COMMITTED = "read_committed"
"""Isolation level of all our consumers: no records of open or aborted transactions."""
READ_COMMITTED = 1
"""The isolation level as a request field."""
REMEMBERED = 10_000
PASSED_OVER = Counter("headrace_kafka_unread_total", "Records or batches that could not be read.", ["topic"])

_reported: set[tuple[str, int, int]] = set()
_asked: set[tuple[str, int, int]] = set()
_gaps: dict[tuple[str, int, int], int] = {}
"""End offset of a fetch → start of the offset gap at its end, for the first record of the next fetch."""


def patch_fetching() -> None:
    """Replace aiokafka's decoder for every consumer of this process; idempotent."""
    fetcher.MemoryRecords = Fetched
    fetcher.PartitionRecords = PartitionRecords


def position_of(consumer: Any, tp: TopicPartition) -> int | None:
    """Return the next offset that a consumer will return, if known; does not wait."""
    assignment = assignment_of(consumer)
    state = None if assignment is None or tp not in assignment.tps else assignment.state_value(tp)
    return state.position if state is not None and state.has_valid_position else None


def skip_unreadable(records: list[Any]) -> list[Any]:
    """Skip records that cannot be decoded, and log them: for readers that do not own the records."""
    if not any(map(unread, records)):
        return records
    for record in records:
        if (why := unread(record)) is not None:
            report_unread(record.topic, record.partition, record.offset, why)
    return [record for record in records if unread(record) is None]


def report_unread(topic: str, partition: int, offset: int, why: Unread) -> None:
    """Log and count a record that could not be decoded, once per process: look-ups may read it again."""
    place = (topic, partition, offset)
    if place in _reported:
        return
    _remember(_reported, place)
    PASSED_OVER.labels(topic).inc()
    log.warning(
        "skipping %s/%d@%d, which cannot be read: %s",
        *place,
        why.reason,
        extra={"event": "record_unread", "topic": topic, "partition": partition, "offset": offset},
    )


class Fetched:
    """Undecoded bytes of one partition in a fetch response; replaces aiokafka's MemoryRecords."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = bytes(raw or b"")

    def has_next(self) -> bool:
        """Return whether there are bytes to decode."""
        return bool(self.raw)

    def size_in_bytes(self) -> int:
        """Return the number of bytes."""
        return len(self.raw)


class PartitionRecords:
    """Iterator over the records of one partition; replaces aiokafka's class of that name."""

    def __init__(
        self,
        tp: TopicPartition,
        records: Fetched,
        aborted_transactions: list[tuple[int, int]] | None,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,  # noqa: ARG002 - they always are
        isolation_level: int,
    ) -> None:
        self._tp = tp
        self._key, self._value = key_deserializer, value_deserializer
        aborted = aborted_transactions if isolation_level == READ_COMMITTED else None
        self._unpacking = Unpacking(records.raw, fetch_offset, aborted, again=self._once_more)
        self._unpacking.since = _gaps.get((*tp, fetch_offset), fetch_offset)
        self._records = iter(self._unpacking)

    @property
    def next_fetch_offset(self) -> int:
        """Return the offset of the next fetch."""
        return self._unpacking.position

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            found = next(self._records)
        except StopIteration:
            self._note_gap()
            raise
        key, value, headers = found.key, found.value, found.headers
        if not isinstance(headers, Unread):
            key = self._key(key) if self._key else key
            value = self._value(value) if self._value else value
            headers = tuple(headers)
        record = ConsumerRecord(
            self._tp.topic,
            self._tp.partition,
            found.offset,
            found.timestamp,
            found.timestamp_type,
            key,
            value,
            None,
            -1 if found.key is None else len(found.key),
            -1 if found.value is None else len(found.value),
            headers,
        )
        if found.since != found.offset:
            record.since = found.since
        return record

    def _note_gap(self) -> None:
        position, begin = self._unpacking.position, self._unpacking.since
        if begin < position:
            if len(_gaps) >= REMEMBERED:
                _gaps.clear()
            _gaps[*self._tp, position] = begin

    def _once_more(self, offset: int) -> bool:
        """Return whether a corrupt batch is to be fetched again: it may have been corrupted in transit."""
        place = (self._tp.topic, self._tp.partition, offset)
        if place in _asked:
            return False
        _remember(_asked, place)
        log.warning("%s/%d@%d: the checksum does not match; fetching it once more", *place)
        return True


def since(record: Any) -> int:
    """Return the start of the offset gap before this record."""
    found: int = getattr(record, "since", record.offset)
    return found


def _remember(places: set[tuple[str, int, int]], place: tuple[str, int, int]) -> None:
    if len(places) >= REMEMBERED:
        places.clear()
    places.add(place)
