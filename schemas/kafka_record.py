"""A record to be written to Kafka, and its destination. Pure.

Apart from schemas/events.py, because every producer in the project writes these records.
"""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """A record to be written; the value None is a tombstone."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 - aiokafka requires a list; it is never modified
    timestamp_ms: int | None = None


class AddressedRecord(NamedTuple):
    """A record with its destination."""

    topic: str
    """Full name, prefix included."""
    partition: int
    record: Record
